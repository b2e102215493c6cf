"""What no PDF may have, whatever the settings say, and what PDFs are called in errors."""

FIELD = "pdf"
MAX_PAGE_POINTS = 14_400.0  # a side of ISO 32000's largest page, on which no text would be read
MAX_TEXT_BYTES = 256 * 1024  # of one page; a dense one has 10,000
MAX_IMAGES_BYTES = 128 * 1024**2  # of all pages' PNGs
