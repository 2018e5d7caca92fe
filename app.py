"""The page of the demo, here and as a Hugging Face Space: load the model, build, launch.

``INTROSPECTION_MODEL`` is a preset, a folder or a Hub id; ``INTROSPECTION_ADAPTER`` an adapter
folder, ``none`` for the bare model. ``GRADIO_SERVER_NAME`` and ``GRADIO_SERVER_PORT`` choose the
address.
"""

import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")


def main() -> int:
    from introspection import demo, models
    from introspection.errors import IntrospectionError

    chosen = os.environ.get("INTROSPECTION_ADAPTER") or "shipped"
    try:
        loaded = models.load(
            os.environ.get("INTROSPECTION_MODEL") or models.DEFAULT,
            adapter=None if chosen.casefold() == "none" else chosen,
        )
        demo.launch(loaded)
    except IntrospectionError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
