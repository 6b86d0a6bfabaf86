"""What `loopfuse tap` and `loopfuse.tap()` are made of, one subject each.

packet   one captured packet, and the IP and TCP headers made up for it
flow     from the records of one connection to packets
session  the broker, the capture rings, and all flows
filter   capture filters in libpcap's language
pcapng   the file format
"""
