/* passing.h - a descriptor goes over an AF_UNIX socket, by SCM_RIGHTS. Behind two_ends.h, which says what
 * the C library is to offer. */
#ifndef PASSING_H
#define PASSING_H

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

union passing_room {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr header;
};

/* A byte with a number beside it, as SCM_RIGHTS or what else `type` says; through that call. */
static inline ssize_t send_by(ssize_t (*call)(int, const struct msghdr *, int), int way, int type,
			      int number)
{
	union passing_room room = {.bytes = {0}};
	struct iovec iov = {"p", 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room.bytes,
			     .msg_controllen = sizeof(room.bytes)};
	room.header.cmsg_level = SOL_SOCKET;
	room.header.cmsg_type = type;
	room.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&room.header), &number, sizeof(number));
	return call(way, &msg, 0);
}

static inline ssize_t send_with(int way, int type, int number)
{
	return send_by(sendmsg, way, type, number);
}

static inline void pass(int way, int fd)
{
	if (send_with(way, SCM_RIGHTS, fd) != 1)
		abort();
}

/* -1: none came. */
static inline int take_passed(int way)
{
	char byte;
	int fd = -1;
	union passing_room room = {.bytes = {0}};
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room.bytes,
			     .msg_controllen = sizeof(room.bytes)};
	if (recvmsg(way, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

#endif
