"""What may be lost at any time: native rows, vendor pages and metadata, with the time they were fetched."""
