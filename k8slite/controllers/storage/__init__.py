"""Claims, volumes, attachments, and devices that are claimed."""
