"""WET files: stored members, records, pages."""
