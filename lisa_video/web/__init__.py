"""The web demo: a page on which a driver, checkpoints and a prompt become a video."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
