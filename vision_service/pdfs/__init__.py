"""PDFs into images and texts of their pages, read in a process of its own."""
