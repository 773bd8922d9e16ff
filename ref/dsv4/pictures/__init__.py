"""Pictures of DeepSeek-V4 as SVG, drawn by code: its architecture, and what happens in a real forward pass.

`python docs/pictures.py` draws those of the documentation.
"""
