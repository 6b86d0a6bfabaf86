/* epoll.h - epoll sets that contain fused sockets. */
#ifndef LF_EPOLL_H
#define LF_EPOLL_H

#include "sock.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct lf_epoll;

bool lf_epoll_init(void);
/* Follows a new epoll descriptor. */
void lf_epoll_track(int fd);
/* dup: `copy` names the same set. */
void lf_epoll_add_descriptor(struct lf_epoll *ep, int copy);
void lf_epoll_remove_descriptor(struct lf_epoll *ep, int fd);

/* epoll_ctl(2) on a socket of ours; 0 or a negative errno. */
int lf_epoll_control(struct lf_epoll *ep, int epfd, int op, int fd, struct lf_sock *sock,
		     struct epoll_event *event);
/* epoll_pwait2(2); `ns` as a timeout, LF_FOREVER for none. */
int lf_epoll_wait(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max, int64_t ns,
		  const sigset_t *mask);
/* A look without waiting at a set that has nothing of ours: the kernel's call, with its errno. */
int lf_epoll_look_at_kernel(struct lf_epoll *ep, int epfd, struct epoll_event *events, int max,
			    const sigset_t *mask);
/* Does the set contain anything that the kernel alone can't answer for? */
bool lf_epoll_is_mixed(const struct lf_epoll *ep);

/* The set is being put into another one: only the kernel will look at it from there. */
void lf_epoll_nest(struct lf_epoll *ep);
bool lf_epoll_is_nested(const struct lf_epoll *ep);

/* One that the program has deleted is no longer in the kernel's set either. */
void lf_epoll_release_gone(struct lf_sock *sock);
/* Has the kernel's set an entry for it, of the program's or of ours? */
bool lf_epoll_is_in_kernel(struct lf_sock *sock);

/* connect() was called on it. Returns the set it has been in since before, or NULL. */
struct lf_epoll *lf_epoll_connecting(struct lf_sock *sock);
/* The socket has a segment and a doorbell now: the sets it is in learn of them. False:
 * it is in a set in a way we can't honour. */
bool lf_epoll_adopt(struct lf_sock *sock);
/* The same for an entry that was made while it was being paired; to be called by both, once
 * the socket is PAIRED and once the entry is there. */
void lf_epoll_catch_up(struct lf_sock *sock, int fd);
/* Its directions have changed between ring and TCP. */
void lf_epoll_refresh(struct lf_sock *sock);
/* Nobody sleeps in its set: it need not rely on the doorbell. */
void lf_epoll_stop_counting(struct lf_sock *sock);
/* There is room for a sender that had too little, or another change of ours that nobody is rung for:
 * who sleeps in its set is to look, or who waits there next. */
void lf_epoll_room(struct lf_sock *sock);
/* Its doorbell goes away before its socket does. */
void lf_epoll_bell_closes(struct lf_sock *sock);
/* One of its descriptors goes away. */
void lf_epoll_descriptor_closes(struct lf_sock *sock, int fd);
/* It lives on without us: its entry is the program's own again. */
void lf_epoll_let_go(struct lf_sock *sock);
/* Its last descriptor goes away. */
void lf_epoll_forget(struct lf_sock *sock);

/* Eager: while answers of the broker are due, its descriptor is one of the set's. */
void lf_epoll_watch_broker(struct lf_epoll *ep);

/* fork: nobody is in the midst of changing a set when memory is copied. The gate is held. */
void lf_epoll_before_fork(void);
void lf_epoll_after_fork_in_parent(void);
void lf_epoll_after_fork_in_child(void);

#endif
