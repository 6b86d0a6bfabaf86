/* names_messages.c - several messages at once, and descriptors among them. */
#define _GNU_SOURCE
#include "shared_page.h"

#include <fcntl.h>

static int between[2];

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr header;
};

static struct mmsghdr message_with(union control *control, struct iovec *iov)
{
	memset(control, 0, sizeof(*control));
	return (struct mmsghdr){.msg_hdr = {.msg_iov = iov,
					    .msg_iovlen = 1,
					    .msg_control = control->bytes,
					    .msg_controllen = sizeof(control->bytes)}};
}

/* Another process gets the socket and talks to the client. */
static void take_over(void)
{
	char byte, words[16] = {0};
	struct iovec iov = {&byte, 1};
	union control control;
	struct mmsghdr msg = message_with(&control, &iov);
	recvmmsg(between[1], &msg, 1, 0, NULL);
	int fd;
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	(void)!write(between[1], "!", 1);
	struct pollfd p = {fd, POLLIN, 0};
	int ready = poll(&p, 1, 1500);
	ssize_t n = recv(fd, words, sizeof(words), MSG_DONTWAIT);
	say("the worker: ready %d, got %zd %s\n", ready, n, words);
	send(fd, "reply", 5, 0);
	(void)!read(between[1], &byte, 1);
	_exit(0);
}

static void talk_to_the_worker(int fd)
{
	char words[16] = {0};
	struct timeval limit = {.tv_sec = 2};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	recv(fd, words, 1, 0);
	send(fd, "hello", 5, 0);
	ssize_t n = recv(fd, words, sizeof(words), 0);
	say("the client got %zd %s\n", n, words);
}

static void hand_over(int fd)
{
	char byte = 'x';
	struct iovec iov = {&byte, 1};
	union control control;
	struct mmsghdr msg = message_with(&control, &iov);
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	say("passed: %d\n", sendmmsg(between[0], &msg, 1, 0));
	(void)!read(between[0], &byte, 1);
	send(fd, "g", 1, 0);
	struct pollfd p = {fd, POLLRDHUP, 0}; /* the client has said what it got */
	poll(&p, 1, 4000);
	(void)!write(between[0], "!", 1);
}

static void pass_a_socket(void)
{
	socketpair(AF_UNIX, SOCK_STREAM, 0, between);
	pid_t worker = fork();
	if (worker == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		take_over();
	}
	act(talk_to_the_worker, hand_over);
	waitpid(worker, NULL, 0);
}

/* --- a message that is cut short is the last one --- */

enum { MESSAGES = 8, SIZE = 700000 };
static char letters[MESSAGES][SIZE];

static void send_more_than_fits(int fd)
{
	struct iovec iovs[MESSAGES];
	int behind_a_cut_one = 0;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (int64_t end = now_ms() + 700; now_ms() < end;) {
		struct mmsghdr msgs[MESSAGES];
		memset(msgs, 0, sizeof(msgs));
		for (int i = 0; i < MESSAGES; i++) {
			iovs[i] = (struct iovec){letters[i], SIZE};
			msgs[i].msg_hdr.msg_iov = &iovs[i];
			msgs[i].msg_hdr.msg_iovlen = 1;
		}
		int n = sendmmsg(fd, msgs, MESSAGES, 0);
		struct pollfd p = {fd, POLLOUT, 0};
		if (n <= 0)
			poll(&p, 1, 100);
		for (int i = 0; i + 1 < n; i++)
			behind_a_cut_one += msgs[i].msg_len < SIZE;
	}
	say("messages behind one that was cut short: %d\n", behind_a_cut_one);
}

static void read_all(int fd)
{
	static char buffer[1 << 18];
	while (recv(fd, buffer, sizeof(buffer), 0) > 0)
		;
}

static void cut_short(void)
{
	act(send_more_than_fits, read_all);
}

/* --- limits --- */

enum { MANY = 1100 };

static void send_many(int fd)
{
	static struct mmsghdr msgs[MANY];
	char byte = 'm';
	struct iovec iov = {&byte, 1};
	for (int i = 0; i < MANY; i++)
		msgs[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
	say("of %d messages at once: %d\n", MANY, sendmmsg(fd, msgs, MANY, 0));
	shutdown(fd, SHUT_WR);
	recv(fd, &byte, 1, 0);
}

static void ask_for_impossible_times(int fd)
{
	char byte;
	struct iovec iov = {&byte, 1};
	struct mmsghdr msg = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
	struct timespec wrong = {0, 2000000000}, negative = {-1, 0};
	read_all(fd);
	int r = recvmmsg(fd, &msg, 1, 0, &wrong);
	int error = errno;
	say("two seconds in nanoseconds: %d %s\n", r, strerror(r < 0 ? error : 0));
	r = recvmmsg(fd, &msg, 1, 0, &negative);
	error = errno;
	say("before now: %d %s\n", r, strerror(r < 0 ? error : 0));
}

static void limits(void)
{
	act(send_many, ask_for_impossible_times);
}

/* --- urgent data end a recvmmsg --- */

static void send_urgent(int fd)
{
	char byte;
	send(fd, "u", 1, MSG_OOB);
	recv(fd, &byte, 1, 0);
}

static void receive_urgent(int fd)
{
	char bytes[2] = "--";
	struct iovec iovs[2] = {{bytes, 1}, {bytes + 1, 1}};
	struct mmsghdr msgs[2];
	memset(msgs, 0, sizeof(msgs));
	for (int i = 0; i < 2; i++) {
		msgs[i].msg_hdr.msg_iov = &iovs[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}
	struct pollfd p = {fd, POLLPRI, 0};
	poll(&p, 1, 3000);
	int n = recvmmsg(fd, msgs, 2, MSG_OOB, NULL), error = 0;
	socklen_t length = sizeof(error);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
	say("urgent: %d %s, then %s\n", n, bytes, strerror(error));
}

static void urgent(void)
{
	act(send_urgent, receive_urgent);
}

/* --- an error behind a message is kept for the next call, on a connection that is still plain --- */

static int second_listener, second_port;

static void send_and_reset(int fd)
{
	(void)fd;
	struct linger at_once = {.l_onoff = 1};
	int second = socket(AF_INET, SOCK_STREAM, 0);
	connect_to(second, second_port);
	send(second, "abc", 3, 0);
	setsockopt(second, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	await_stage(1);
	close(second);
	pause();
}

static void receive_two_messages(struct call *call)
{
	char bytes[8];
	struct iovec iovs[2] = {{call->words, 8}, {bytes, 8}};
	struct mmsghdr msgs[2] = {{.msg_hdr = {.msg_iov = iovs, .msg_iovlen = 1}},
				  {.msg_hdr = {.msg_iov = iovs + 1, .msg_iovlen = 1}}};
	call->result = recvmmsg(call->fd, msgs, 2, 0, NULL);
}

static void receive_two_of_one(int fd)
{
	char byte;
	(void)fd;
	struct call call = {.make = receive_two_messages, .fd = accept(second_listener, NULL, NULL)};
	begin_call(&call);
	await_sleep(&call); /* for the second one */
	shared->stage = 1;
	end_call(&call);
	ssize_t next = recv(call.fd, &byte, 1, 0);
	say("%zd: %s, then %zd %s\n", call.result, call.words, next, next == -1 ? strerror(errno) : "");
}

static void kept_error(void)
{
	share();
	second_listener = listen_somewhere(&second_port);
	act(send_and_reset, receive_two_of_one);
}

/* --- a list of buffers that is nowhere, or says nonsense; before the connection is fused --- */

static void send_nonsense(int fd)
{
	(void)fd;
	char byte = 'x';
	int port, listener = listen_somewhere(&port), other = socket(AF_INET, SOCK_STREAM, 0);
	struct iovec iov = {&byte, (size_t)-1};
	struct msghdr nowhere = {.msg_iov = (struct iovec *)8, .msg_iovlen = 1};
	struct msghdr nonsense = {.msg_iov = &iov, .msg_iovlen = 1};
	connect_to(other, port);
	ssize_t r = sendmsg(other, &nowhere, 0);
	say("nowhere: %zd %s\n", r, strerror(errno));
	r = sendmsg(other, &nonsense, 0);
	say("nonsense: %zd %s\n", r, strerror(errno));
	close(listener);
}

static void stay(int fd)
{
	(void)fd;
	pause();
}

static void nonsense(void)
{
	act(stay, send_nonsense);
}

/* --- no name is asked for --- */

static void send_two_bytes(int fd)
{
	send(fd, "ab", 2, 0);
	stay(fd);
}

static void receive_without_a_name(int fd)
{
	struct sockaddr_in name;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_namelen = 77, .msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = recvmsg(fd, &msg, 0);
	say("no name: %zd, length %d\n", n, msg.msg_namelen);
	msg.msg_name = &name;
	n = recvmsg(fd, &msg, 0);
	say("a name: %zd, length %d\n", n, msg.msg_namelen);
}

static void without_a_name(void)
{
	act(send_two_bytes, receive_without_a_name);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"pass_a_socket", pass_a_socket},
		{"cut_short", cut_short},
		{"limits", limits},
		{"urgent", urgent},
		{"kept_error", kept_error},
		{"nonsense", nonsense},
		{"without_a_name", without_a_name},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
