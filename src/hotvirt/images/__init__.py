"""Disk images: inspect safely, build the guests we offer, grow, seed."""
