/* reasons.h - why a connection is not, or no longer, fused.
 *
 * The numbers travel in the segment and on the wire; src/loopfuse/_reasons.py holds
 * the same table with its words, and a test compares the two.
 */
#ifndef LF_REASONS_H
#define LF_REASONS_H

enum lf_reason {
	LF_REASON_NONE = 0,
	/* declined: the connection never left TCP */
	LF_REASON_NO_COUNTERPART = 1,     /* the other end has not claimed (not under loopfuse?) */
	LF_REASON_IO_OUTSIDE_LIBC = 2,    /* the kernel counted bytes the library did not */
	LF_REASON_SHARED_DESCRIPTOR = 3,  /* another process holds the socket too */
	LF_REASON_DESCRIPTOR_PASSED = 4,  /* sent with SCM_RIGHTS */
	LF_REASON_SOCKET_OPTION = 5,      /* an option a ring can't honour */
	LF_REASON_EPOLL_KIND = 6,         /* EPOLLEXCLUSIVE, nested epoll, or a dup in epoll */
	LF_REASON_FOREIGN_NETNS = 7,      /* a network namespace the broker can't look into */
	LF_REASON_NOT_VERIFIED = 8,       /* the kernel does not confirm the claim */
	LF_REASON_FOREIGN_USER = 9,       /* two users' ends, and the broker is not the system's */
	LF_REASON_NO_DESCRIPTORS = 10,    /* too few file descriptors on one side */
	LF_REASON_NO_MEMORY = 11,         /* segment could not be made or mapped, or grow */
	LF_REASON_BAD_SEGMENT = 12,       /* what the broker sent does not check out */
	LF_REASON_STDIO = 13,             /* fdopen() of the socket */
	LF_REASON_TOO_LATE = 14,          /* closing, or shut down, before it was paired */
	/* either: the broker stands aside, or has a live connection go back to TCP */
	LF_REASON_FIREWALL = 15,          /* a packet filter or tc looks at its payload */
	LF_REASON_POLICY = 16,            /* a policy file forbids it */
	/* defused: it was fused and went back to TCP */
	LF_REASON_REQUEST = 32,           /* loopfuse defuse */
	LF_REASON_EXEC = 33,              /* a program that inherits the socket is started */
	LF_REASON_URGENT_DATA = 34,       /* MSG_OOB */
	LF_REASON_PEER_GONE = 35,         /* nobody holds the other end any more */
	LF_REASON_PEER_CLOSED = 36,       /* the other end closed for reading */
	LF_REASON_CORRUPT = 37,           /* the other end wrote impossible indices */
	LF_REASON_DESCRIPTOR_NEEDED = 38, /* the program needed the doorbell's descriptor */
};

#endif
