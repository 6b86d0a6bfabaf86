"""Packet filters on the loopback device, and what the broker makes of them."""
