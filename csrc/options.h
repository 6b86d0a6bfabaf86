/* options.h - socket options: which a ring keeps to, and which only TCP can honour.
 * docs/semantics/options.md has a row for each.
 */
#ifndef LF_OPTIONS_H
#define LF_OPTIONS_H

#include "sock.h"

#include <stdbool.h>
#include <sys/socket.h>

#ifndef TCP_INQ /* linux/tcp.h; netinet/tcp.h of some has it */
#define TCP_INQ 36
#endif

#ifndef SO_BUF_LOCK /* asm-generic/socket.h; older C libraries lack it */
#define SO_BUF_LOCK 72
#endif
/* Its bits: the program has fixed that buffer's size. */
enum { LF_SEND_BUFFER_LOCKED = 1, LF_RECEIVE_BUFFER_LOCKED = 2 };

/* An int option's value; `otherwise`: this kernel does not know it. */
int lf_option_ask(int fd, int level, int name, int otherwise);
/* The socket's cookie; 0: there is no socket at fd. */
uint64_t lf_option_cookie(int fd);
/* The cookie of its network namespace; 0: this kernel has none. */
uint64_t lf_option_namespace(int fd);

/* What becomes of the connection when the program has set an option. */
enum lf_option_way {
	LF_OPTION_STAYS,   /* the ring can go on */
	LF_OPTION_TO_TCP,  /* later bytes go by TCP; what lies in the rings is read there */
	LF_OPTION_ALL_TCP, /* unread bytes too are to come by TCP, if the peer answers in time */
	LF_OPTION_ONLY_TCP, /* unread bytes too come by TCP, however late */
};
enum lf_option_way lf_option_way(int level, int name, const void *value, socklen_t len);

/* The kernel has accepted this option: the ring keeps to it too. */
void lf_option_note(struct lf_sock *sock, int fd, int level, int name, const void *value,
		    socklen_t len);

/* Before pairing: takes over what was set before we followed the socket, or on the
 * listener it comes from. False: something is set that only TCP can honour. */
bool lf_options_learn(struct lf_sock *sock, int fd);

/* TCP_ZEROCOPY_RECEIVE, which receives: TCP from now on. True: `value` has been given the
 * answer, "nothing mapped, use recv", for bytes that recv finds in a ring. */
bool lf_option_refuse_zero_copy(struct lf_sock *sock, int fd, void *value, socklen_t len);

/* Queries that the kernel has answered for its own queues: adds what lies in the rings. */
void lf_option_amend(struct lf_sock *sock, int level, int name, void *value, socklen_t len);
void lf_ioctl_amend(struct lf_sock *sock, unsigned long request, void *value);

/* What a receive buffer takes before its reader has read anything: half of tcp_rmem[1] of
 * tcp(7), as machines have it. */
enum { LF_UNTRIED_WINDOW = 64 * 1024 };

/* How many unread bytes the other end may have towards us, as the program bounded it, or asks
 * for by SO_RCVLOWAT; 0: it did neither. */
uint32_t lf_options_receive_limit(const struct lf_sock *sock);
/* What TCP_INQ tells after a receive: bytes that are left, wherever they lie. */
int lf_options_left(struct lf_sock *sock, int fd);

#endif
