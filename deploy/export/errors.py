"""The exporter's only error."""


class ExportError(Exception):
    """The export cannot be made; the text is one clear line naming what is wrong."""
