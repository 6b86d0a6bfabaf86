/* tcp_states.h - states of TCP as TCP_INFO tells them (include/net/tcp_states.h in the kernel).
 * <netinet/tcp.h> names them, too, but has no place beside <linux/tcp.h>.
 */
#ifndef LF_TCP_STATES_H
#define LF_TCP_STATES_H

enum lf_tcp_state {
	LF_TCP_ESTABLISHED = 1,
	LF_TCP_FIN_WAIT1 = 4,
	LF_TCP_FIN_WAIT2 = 5,
	LF_TCP_CLOSED = 7,
	LF_TCP_CLOSE_WAIT = 8,
	LF_TCP_LAST_ACK = 9,
	LF_TCP_CLOSING = 11,
};

#endif
