"""The parts of the broker, one subject each; `loopfuse._broker` puts them together.

client     one connected library or command line: its packets, its mailbox
verify     does the kernel confirm a claim?
ledger     the connections the broker knows, and what became of them
budget     how large the rings of the next pair may be
pairing    from claims to pairs
firewall   the packet filters of every namespace in use
permission what policy and packet filters say against a connection
sweep      which connections are over
tally      counts that never go down, for the metrics
exposition the metrics as text (needs prometheus_client)
scrapes    who asks for them over HTTP
rows       what `ps` says of a connection
taps       who watches which connections
requests   the command line's JSON requests
listening  the socket file: its lock, stale ones, its removal
decisions  what the log says of connections
log        lines for a person, bounded
"""
