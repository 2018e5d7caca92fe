"""The Gradio page: three answers side by side, one verdict, a halt that cannot be overlooked."""
