"""Colours, fonts and the head of the page: system fonts, no request to anybody, readable contrast."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

STYLES = sorted(Path(__file__).parent.parent.rglob("*.css"))

# A header set in Python is lost when Node serves the page (SSR); a meta tag is not.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; frame-src 'none'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'"
)
HEAD = (
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    '<meta name="description" content="Inject a concept into a language model and see whether it '
    'notices, names it, or halts.">'
)


def range_css(low: float, high: float, top: float) -> str:
    """Where the strength slider's track is shaded, as fractions of its length."""
    return f":root{{--trained-from:{low / top:.4f};--trained-to:{high / top:.4f}}}"


def theme() -> gr.themes.Base:
    """Gradio's default with an indigo accent and the colours that reach WCAG AA contrast."""
    # Of the fonts that Gradio serves itself this one is complete in both weights.
    font = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
    return gr.themes.Default(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=(gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), *font),
        font_mono=("ui-monospace", "Consolas", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        block_title_text_weight="600",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_cancel_background_fill="#b91c1c",
        button_cancel_background_fill_hover="#991b1b",
        button_cancel_background_fill_dark="#b91c1c",
        button_cancel_background_fill_hover_dark="#991b1b",
        button_cancel_text_color="white",
        button_cancel_text_color_dark="white",
        slider_color="*primary_600",
    )
