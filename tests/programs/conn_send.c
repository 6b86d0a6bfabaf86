/* conn_send.c - sending: in which order, and when there is room. */
#include "resend.h"
#include "shared_page.h"

#include "passing.h"

#include <linux/capability.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/uio.h>

enum { WORDS = 512, AT_FIRST = 400 * 1000, AT_ALL = 600 * 1000 };

/* --- one thread sends again by TCP what its peer wants back, and another one sends on --- */

static void *sleep_in_receive(void *fd)
{
	char byte;
	(void)!recv(*(int *)fd, &byte, 1, 0);
	return NULL;
}

/* Counts on from *next to `end`, until there has been no room for `patience_ms`. */
static void send_counting(int fd, uint64_t *next, uint64_t end, int patience_ms)
{
	static uint64_t words[WORDS];
	static size_t offset = sizeof(words);
	for (int64_t last = now_ms(); now_ms() - last < patience_ms;) {
		if (offset == sizeof(words)) {
			if (*next >= end)
				return;
			for (int i = 0; i < WORDS; i++)
				words[i] = (*next)++;
			offset = 0;
		}
		ssize_t n = send(fd, (char *)words + offset, sizeof(words) - offset, MSG_DONTWAIT);
		if (n > 0) {
			offset += (size_t)n;
			last = now_ms();
		}
	}
}

static void send_while_resending(int fd)
{
	pthread_t sleeper;
	int small = 16 * 1024;
	uint64_t next = 0;
	pthread_create(&sleeper, NULL, sleep_in_receive, &fd);
	send_counting(fd, &next, AT_FIRST, 100);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	keep_send_buffers_small();
	usleep(300 * 1000);
	send_counting(fd, &next, AT_ALL, 5000);
	pause();
}

static void want_back_and_read(int fd)
{
	static char bytes[1 << 16];
	uint64_t due = 0;
	size_t have = 0;
	struct timeval patience = {5, 0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	usleep(250 * 1000);
	want_all_by_tcp(fd);
	usleep(350 * 1000);
	while (due < AT_ALL) {
		ssize_t n = recv(fd, bytes + have, sizeof(bytes) - have, 0);
		if (n <= 0)
			break;
		have += (size_t)n;
		size_t at = 0;
		for (; at + sizeof(due) <= have; at += sizeof(due), due++)
			if (memcmp(bytes + at, &due, sizeof(due)) != 0) {
				say("not in order\n");
				return;
			}
		memmove(bytes, bytes + at, have - at);
		have -= at;
	}
	say("%s in order\n", due >= AT_ALL ? "all" : "some");
}

static void resent_first(void)
{
	act(send_while_resending, want_back_and_read);
}

/* --- what is sent again finds no room at the peer, which does not read --- */

static void fill(int fd)
{
	static char bytes[65536];
	for (ssize_t n; (n = send(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0;)
		shared->sent += n;
}

static void send_on(int fd)
{
	int before, after;
	socklen_t length = sizeof(before);
	getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &before, &length);
	shared->stage = 1;
	await_stage(2);
	/* There may be room now: TCP's buffers together hold more than the ring. */
	if (send(fd, "x", 1, MSG_DONTWAIT) == 1)
		shared->sent += 1;
	say("a send that does not wait returned while the peer %s\n",
	    shared->got ? "read" : "had not read");
	getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &after, &length);
	say("the send buffer is %s\n", after == before ? "as it was" : "another");
	shared->stage = 3;
	await_stage(4);
	say("the peer got %s\n", shared->got == shared->sent ? "all" : "less");
}

static void fill_and_send_on(int fd)
{
	int size = 16 * 1024;
	fill(fd);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* from now on TCP leaves it alone */
	send_on(fd);
}

static void want_all_and_read_late(int fd)
{
	static char bytes[65536];
	await_stage(1);
	want_all_by_tcp(fd);
	shared->stage = 2;
	await_stage(3);
	for (ssize_t n; shared->got < shared->sent && (n = recv(fd, bytes, sizeof(bytes), 0)) > 0;)
		shared->got += n;
	shared->stage = 4;
	pause();
}

static void resent_at_once(void)
{
	share();
	act(want_all_and_read_late, fill_and_send_on);
}

/* --- a send buffer that could only be made smaller, and a limit for what is not sent yet --- */

/* From here on SO_SNDBUF gives net.core.wmem_max at the most. */
static void be_like_anybody(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
	if (syscall(SYS_capget, &header, sets) == -1)
		abort();
	sets[0].effective &= ~(1u << CAP_NET_ADMIN);
	sets[0].permitted &= ~(1u << CAP_NET_ADMIN);
	if (syscall(SYS_capset, &header, sets) == -1)
		abort();
}

static int more_than_anybody_gets(void)
{
	int most = 0;
	FILE *file = fopen("/proc/sys/net/core/wmem_max", "r");
	if (!file || fscanf(file, "%d", &most) != 1)
		abort();
	fclose(file);
	return most + (1 << 20);
}

static void fill_past_limits_and_send_on(int fd)
{
	int size = more_than_anybody_gets(), lowat = 1;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	be_like_anybody();
	fill(fd);
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	send_on(fd);
	socklen_t length = sizeof(lowat);
	getsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, &length);
	say("the limit is %d\n", lowat);
}

static void resent_past_limits(void)
{
	share();
	act(want_all_and_read_late, fill_past_limits_and_send_on);
}

/* --- a doorbell that the kernel has no memory for, for long --- */

/* Of this thread: the library's rings fail, the program's own sends don't. */
static void have_no_memory_for_rings(void)
{
	enum { FLAGS = offsetof(struct seccomp_data, args[3]) };
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sendto, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FLAGS),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOBUFS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		abort();
}

static void *send_without_memory(void *fd)
{
	have_no_memory_for_rings();
	send(*(int *)fd, "a", 1, 0);
	return NULL;
}

static void send_and_send_again(int fd)
{
	pthread_t without;
	for (int64_t end = now_ms() + 5000; now_ms() < end; usleep(5000))
		if (shared->client && sleeps(shared->client, shared->client))
			break;
	usleep(20 * 1000);
	pthread_create(&without, NULL, send_without_memory, &fd);
	pthread_join(without, NULL);
	send(fd, "b", 1, 0);
	for (int64_t end = now_ms() + 5000; shared->got < 2 && now_ms() < end;)
		usleep(1000);
	say("the peer got %ld of 2\n", (long)shared->got);
}

static void sleep_until_bytes_come(int fd)
{
	char byte;
	shared->client = getpid();
	while (recv(fd, &byte, 1, 0) == 1)
		shared->got++;
}

static void rung_at_last(void)
{
	share();
	act(sleep_until_bytes_come, send_and_send_again);
}

/* --- the peer has left its ring when a child in our memory becomes another program --- */

static void pass_to_nobody(int fd)
{
	int between[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, between) == -1)
		abort();
	pass(between[0], fd);
}

static void say_the_next_five(int fd)
{
	char bytes[64];
	struct timeval patience = {3, 0};
	ssize_t n, sum = 0;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	while (sum < 5 && (n = recv(fd, bytes + sum, sizeof(bytes) - 1 - (size_t)sum, 0)) > 0)
		sum += n;
	bytes[sum] = 0;
	say("the peer got %s\n", bytes);
}

static void leave_and_read(int fd)
{
	await_stage(1);
	pass_to_nobody(fd); /* with bytes unread, which come by TCP from then on */
	shared->stage = 2;
	await_stage(3);
	say_the_next_five(fd);
	shared->stage = 4;
	pause();
}

static void become_another_in_our_memory(int fd)
{
	send(fd, "1234", 4, 0);
	shared->stage = 1;
	await_stage(2);
	pid_t child = vfork();
	if (child == 0) {
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	waitpid(child, NULL, 0);
	send(fd, "5", 1, 0);
	shared->stage = 3;
	await_stage(4);
}

static void exec_in_our_memory(void)
{
	share();
	act(leave_and_read, become_another_in_our_memory);
}

/* --- the peer leaves it only when there is a child in our memory, which becomes a program that writes --- */

static void leave_when_told(int fd)
{
	await_stage(1);
	pass_to_nobody(fd); /* waits a second for the bytes to come by TCP */
	say_the_next_five(fd);
	shared->stage = 2;
	pause();
}

static void become_a_writer_in_our_memory(int fd)
{
	send(fd, "1234", 4, 0);
	pid_t child = vfork();
	if (child == 0) {
		shared->stage = 1;
		usleep(200000);
		dup2(fd, 1);
		execl("/bin/echo", "echo", "-n", "5", NULL);
		_exit(1);
	}
	waitpid(child, NULL, 0);
	await_stage(2);
}

static void exec_of_a_writer(void)
{
	share();
	act(leave_when_told, become_a_writer_in_our_memory);
}

/* --- urgent data behind a ring that the peer wants ended for a reason of its own --- */

static void send_urgently(int fd)
{
	send(fd, "before", 6, 0);
	shared->stage = 1;
	await_stage(2);
	send(fd, "!", 1, MSG_OOB);
	send(fd, "after", 5, 0);
	shared->stage = 3;
	await_stage(4);
}

static void want_tcp_and_read(int fd)
{
	char words[64];
	int on = 1;
	await_stage(1);
	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)); /* which a ring can't honour */
	shared->stage = 2;
	await_stage(3);
	for (int i = 0; i < 2; i++) {
		ssize_t n = recv(fd, words, sizeof(words) - 1, 0);
		words[n > 0 ? n : 0] = 0;
		say("%s\n", words);
	}
	shared->stage = 4;
	pause();
}

static void urgent_behind_a_wish(void)
{
	share();
	act(want_tcp_and_read, send_urgently);
}

/* --- a count that another call's failure left --- */

static void say_result(const char *what, ssize_t r)
{
	say("%s: %zd %s\n", what, r, r == -1 ? strerror(errno) : "");
}

static void move_minus_one(int fd)
{
	char bytes[16] = {0};
	volatile size_t n = (size_t)-1;
	say_result("write", write(fd, bytes, n));
	say_result("read", read(fd, bytes, n));
	send(fd, "x", 1, 0);
	await_stage(1);
}

static void count_what_comes(int fd)
{
	char bytes[64];
	send(fd, "y", 1, 0);
	say_result("the peer got", recv(fd, bytes, sizeof(bytes), 0));
	shared->stage = 1;
	pause();
}

/* The kernel refuses such a list before it looks at a byte. */
static void move_far_too_much(int fd)
{
	char bytes[16] = "";
	struct iovec list[2] = {{bytes, 1}, {bytes, (size_t)SSIZE_MAX + 1}};
	struct msghdr message = {.msg_iov = list, .msg_iovlen = 2};
	say_result("writev", writev(fd, list, 2));
	say_result("sendmsg", sendmsg(fd, &message, 0));
	say_result("readv", readv(fd, list, 2));
	say_result("recvmsg", recvmsg(fd, &message, 0));
	send(fd, "x", 1, 0);
	await_stage(1);
}

static void far_too_much(void)
{
	share();
	act(count_what_comes, move_far_too_much);
}

static void minus_one(void)
{
	share();
	act(count_what_comes, move_minus_one);
}

/* --- a writer that sleeps until there is room; its reader reads a part and stops --- */

static _Atomic uint64_t *filled;

static void fill_and_sleep(int fd)
{
	static char bytes[1 << 16];
	uint64_t sum = 0;
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	struct epoll_event event = {.events = EPOLLOUT};
	int set = epoll_create1(0);
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
	do
		for (ssize_t n; (n = send(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0;)
			sum += (uint64_t)n;
	while (epoll_wait(set, &event, 1, 150) == 1);
	*filled = sum;
	int told = epoll_wait(set, &event, 1, 1000);
	say("%s\n", told == 0 && poll(&p, 1, 0) == 1 ? "room, and a writer that sleeps" : "told");
	*filled = 0;
	pause();
}

static void read_a_part(int fd)
{
	static char bytes[1 << 16];
	while (*filled == 0)
		usleep(1000);
	usleep(50 * 1000);
	for (uint64_t rest = *filled / 100 * 45; rest;) {
		ssize_t n = recv(fd, bytes, rest < sizeof(bytes) ? rest : sizeof(bytes), 0);
		if (n <= 0)
			return;
		rest -= (uint64_t)n;
	}
	for (int64_t end = now_ms() + 5000; *filled && now_ms() < end;)
		usleep(1000);
}

static void room_again(void)
{
	filled = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	act(fill_and_sleep, read_a_part);
}

/* --- a signal while sendfile first sends again what the peer wants by TCP, and does not read --- */

static void note_the_signal(int signal)
{
	(void)signal;
	shared->stage = 3;
}

static void fill_and_send_a_file(int fd)
{
	enum { SIZE = 1 << 20 };
	int size = 16 * 1024, file = memfd_create("payload", MFD_CLOEXEC);
	struct sigaction action = {.sa_handler = note_the_signal, .sa_flags = SA_RESTART};
	struct itimerval soon = {.it_value = {.tv_usec = 200 * 1000}};
	if (ftruncate(file, SIZE) == -1 || sigaction(SIGALRM, &action, NULL) == -1)
		abort();
	fill(fd);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	keep_send_buffers_small();
	shared->stage = 1;
	await_stage(2);
	setitimer(ITIMER_REAL, &soon, NULL);
	off_t at = 0;
	while (at < SIZE && (sendfile(fd, file, &at, (size_t)(SIZE - at)) > 0 || errno == EINTR))
		;
	shared->sent += at;
	close(fd);
}

static void want_all_and_read_after_the_signal(int fd)
{
	static char bytes[65536];
	await_stage(1);
	want_all_by_tcp(fd);
	shared->stage = 2;
	for (int64_t end = now_ms() + 5000; shared->stage < 3 && now_ms() < end;)
		usleep(1000);
	say("the signal was %s\n", shared->stage == 3 ? "handled" : "held back");
	for (ssize_t n; (n = recv(fd, bytes, sizeof(bytes), 0)) > 0;)
		shared->got += n;
	say("the peer got %s\n", shared->got == shared->sent ? "all" : "less");
}

static void signal_in_sendfile(void)
{
	share();
	act(fill_and_send_a_file, want_all_and_read_after_the_signal);
}

static void *send_much(void *fd)
{
	static char much[32 << 20];
	ssize_t n = send(*(int *)fd, much, sizeof(much), MSG_NOSIGNAL);
	say("%s was sent\n", n > 0 && n < (ssize_t)sizeof(much) ? "a part" : "none or all");
	return NULL;
}

static void answer_late(int fd)
{
	await_stage(1);
	usleep(200000);
	send(fd, "hello", 5, 0);
	pause();
}

/* The send ends in TCP, whither the option leads, by a shutdown of our own. */
static void shut_down_under_a_send(int fd)
{
	pthread_t thread;
	char word[10] = "";
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	pthread_create(&thread, NULL, send_much, &fd);
	usleep(300000);
	setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &(int){1}, sizeof(int));
	shutdown(fd, SHUT_WR);
	pthread_join(thread, NULL);
	int ready = poll(&pollfd, 1, 0);
	shared->stage = 1;
	ssize_t n = recv(fd, word, sizeof(word), 0);
	say("poll: %d; then %zd: \"%s\"\n", ready, n, word);
}

static void shutdown_under_a_send(void)
{
	share();
	act(answer_late, shut_down_under_a_send);
}

/* --- flags that the kernel refuses --- */

static void send_with_flags(int fd)
{
	struct iovec piece = {"abc", 3};
	struct msghdr msg = {.msg_iov = &piece, .msg_iovlen = 1};
	struct mmsghdr msgs = {.msg_hdr = msg};
	char bytes[4];
	struct iovec room = {bytes, 3};
	ssize_t n = send(fd, "abc", 3, MSG_FASTOPEN);
	say("send: %zd %s\n", n, n < 0 ? strerror(errno) : "");
	n = sendmsg(fd, &msg, MSG_FASTOPEN);
	say("sendmsg: %zd %s\n", n, n < 0 ? strerror(errno) : "");
	n = sendmmsg(fd, &msgs, 1, MSG_FASTOPEN);
	say("sendmmsg: %zd %s\n", n, n < 0 ? strerror(errno) : "");
	for (unsigned flag = 0x40; flag; flag <<= 1) {
		if (flag == 0x100)
			continue; /* RWF_NOSIGNAL, which Linux knows since 6.18 */
		n = pwritev2(fd, &piece, 1, -1, (int)flag);
		if (n != -1 || errno != EOPNOTSUPP)
			say("pwritev2, %#x: %zd\n", flag, n);
		n = preadv2(fd, &room, 1, -1, (int)(flag | RWF_NOWAIT));
		if (n != -1 || errno != EOPNOTSUPP)
			say("preadv2, %#x: %zd\n", flag, n);
	}
	n = pwritev2(fd, &piece, 1, -1, RWF_NOWAIT | RWF_DSYNC | RWF_APPEND);
	say("pwritev2 with flags of files: %zd\n", n);
	shutdown(fd, SHUT_WR);
	recv(fd, bytes, 1, 0);
}

static void say_what_came(int fd)
{
	char bytes[100];
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_WAITALL);
	say("the peer got %zd\n", n);
}

static void refused_flags(void)
{
	act(send_with_flags, say_what_came);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"resent-first", resent_first},
		{"resent-at-once", resent_at_once},
		{"resent-past-limits", resent_past_limits},
		{"rung-at-last", rung_at_last},
		{"exec-in-our-memory", exec_in_our_memory},
		{"exec-of-a-writer", exec_of_a_writer},
		{"urgent-behind-a-wish", urgent_behind_a_wish},
		{"minus-one", minus_one},
		{"far-too-much", far_too_much},
		{"room-again", room_again},
		{"signal-in-sendfile", signal_in_sendfile},
		{"shutdown-under-a-send", shutdown_under_a_send},
		{"refused-flags", refused_flags},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
