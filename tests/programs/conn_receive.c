/* conn_receive.c - receiving: what wakes a receive, and what it then finds. */
#include "shared_page.h"

#include "passing.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

/* --- two threads, asleep in receives of one byte each: whoever gets the first byte of a round
 * goes away, and the other must be woken for the second. A race, so many rounds of it. --- */

struct rounds {
	_Atomic int begun, first_taken, over;
};
static struct rounds *rounds;
static int shared_socket;
static _Atomic int taken_by_other, turn;

static void wait_a_little(unsigned n)
{
	for (volatile unsigned i = 0; i < n; i++)
		;
}

static void send_two_a_round(int fd)
{
	unsigned seed = 1;
	for (int round = 0; !rounds->over;) {
		while (rounds->begun == round && !rounds->over)
			;
		round = rounds->begun;
		wait_a_little((unsigned)rand_r(&seed) % 600);
		send(fd, "1", 1, 0);
		while (rounds->first_taken < round && !rounds->over)
			;
		send(fd, "2", 1, 0);
	}
}

static void *take_one_a_round(void *unused)
{
	char byte;
	(void)unused;
	for (int mine = 0; recv(shared_socket, &byte, 1, 0) == 1; mine++) {
		if (byte == '1')
			rounds->first_taken = rounds->begun;
		taken_by_other++;
		while (turn == mine)
			;
	}
	return NULL;
}

static void take_the_others(int fd)
{
	unsigned seed = 7;
	char byte;
	pthread_t other;
	shared_socket = fd;
	pthread_create(&other, NULL, take_one_a_round, NULL);
	for (int64_t end = now_ms() + 1500; now_ms() < end && !rounds->over; turn++) {
		struct timespec nap = {0, 80000};
		nanosleep(&nap, NULL);
		int before = taken_by_other;
		rounds->begun++;
		wait_a_little((unsigned)rand_r(&seed) % 300);
		if (recv(fd, &byte, 1, 0) == 1 && byte == '1')
			rounds->first_taken = rounds->begun;
		for (int64_t patience = now_ms() + 2000; taken_by_other == before; sched_yield())
			if (now_ms() > patience) {
				say("a byte, and a thread that sleeps\n");
				rounds->over = 1;
				return;
			}
	}
	rounds->over = 1;
	say("each byte woke a thread\n");
}

static void two_sleepers(void)
{
	rounds = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	act(send_two_a_round, take_the_others);
}

/* --- receives of more than the sender may have under way --- */

enum { MUCH = 256 * 1024, TIMES = 20 };

static void send_much(int fd, size_t n)
{
	static char bytes[65536];
	for (size_t sent = 0; sent < n;) {
		size_t rest = n - sent;
		ssize_t r = send(fd, bytes, rest < sizeof(bytes) ? rest : sizeof(bytes), 0);
		if (r <= 0)
			return;
		sent += (size_t)r;
	}
}

static void send_times(int fd)
{
	char byte;
	int small = 16 * 1024;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (int i = 0; i < TIMES; i++) {
		send_much(fd, MUCH);
		recv(fd, &byte, 1, 0);
	}
	pause();
}

static void receive_all(int fd)
{
	static char bytes[MUCH];
	for (int i = 0; i < TIMES; i++) {
		struct timeval patience = {5, 0};
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_WAITALL);
		if (n != sizeof(bytes)) {
			say("%zd of %d\n", n, MUCH);
			return;
		}
		send(fd, "x", 1, 0);
	}
	say("each receive got all\n");
}

static void wait_for_all(void)
{
	act(send_times, receive_all);
}

static void send_much_from_a_small_buffer(int fd)
{
	int small = 32 * 1024;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	recv(fd, &(char){0}, 1, 0);
	send_much(fd, 4 * MUCH);
	pause();
}

static void wait_for_low_water(int fd)
{
	int low_water = 2 * MUCH;
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof(low_water));
	send(fd, "x", 1, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	say("poll says %d\n", poll(&p, 1, 5000)); /* TCP, short of memory, says so early */
}

static void low_water(void)
{
	act(send_much_from_a_small_buffer, wait_for_low_water);
}

/* --- a low-water mark holds where the ring ends and TCP goes on --- */

static void leave_the_ring_below_the_mark(int fd)
{
	send(fd, "01234", 5, 0);
	await_stage(1);
	dup2(fd, STDIN_FILENO); /* plain from here on, for this */
	send(fd, "567", 3, 0);
	usleep(100000);
	send(fd, "89abcdefghij", 12, 0); /* of itself enough to wake the kernel's receive */
	pause();
}

static void take_sixteen(struct call *call)
{
	call->result = recv(call->fd, call->words, 16, 0);
}

static void wait_for_ten(int fd)
{
	int ten = 10;
	struct call call = {.make = take_sixteen, .fd = fd};
	await_queued(fd, 5);
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &ten, sizeof(ten));
	begin_call(&call);
	await_sleep(&call);
	shared->stage = 1;
	end_call(&call);
	say("%zd %s\n", call.result, call.words);
}

static void low_water_beyond_the_ring(void)
{
	share();
	act(leave_the_ring_below_the_mark, wait_for_ten);
}

/* --- MSG_TRUNC throws away as much as was asked, across the end of a ring, too --- */

static void send_over_the_end(int fd)
{
	char bytes[100] = {0};
	uint32_t rate = 1 << 30;
	send(fd, bytes, 60, 0);
	/* An option that only TCP can honour. */
	setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
	send(fd, bytes, 100, 0);
	send(fd, bytes, 10, 0);
	pause();
}

static void throw_away(int fd)
{
	char bytes[200];
	await_queued(fd, 170);
	ssize_t first = recv(fd, bytes, 100, MSG_TRUNC);
	ssize_t second = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	say("%zd, then %zd\n", first, second);
}

static void truncated(void)
{
	act(send_over_the_end, throw_away);
}

/* --- peeks see past the end of a ring, and past its beginning --- */

static void send_byte_and_byte(int fd)
{
	uint32_t rate = 1 << 30;
	send(fd, "a", 1, 0);
	/* An option that only TCP can honour. */
	setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
	send(fd, "b", 1, 0);
	pause();
}

static void peek_twice(int fd)
{
	char bytes[3] = "";
	await_queued(fd, 2);
	ssize_t n = recv(fd, bytes, 2, MSG_PEEK);
	say("%zd %s", n, bytes);
	n = recv(fd, bytes, 2, MSG_PEEK | MSG_WAITALL);
	say(" %zd %s", n, bytes);
	n = recv(fd, bytes, 2, 0);
	say(" %zd %s\n", n, bytes);
}

static void peek_past_the_end(void)
{
	act(send_byte_and_byte, peek_twice);
}

enum { PAIRS = 40 };

static void send_pairs(int fd)
{
	char byte;
	for (int i = 0; i < PAIRS; i++) {
		send(fd, "a", 1, 0);
		usleep(8000);
		send(fd, "b", 1, 0);
		recv(fd, &byte, 1, 0);
	}
	pause();
}

/* Without a warming up: nothing has gone by ring before. */
static void act_cold(void (*theirs)(int), void (*ours)(int))
{
	act_with(NULL, theirs, ours);
	say_whether_fused();
}

static void peek_at_pairs(int fd)
{
	int pairs = 0;
	char bytes[2];
	for (ssize_t n = 2; n == 2 && pairs < PAIRS; pairs += n == 2) {
		int64_t patience = now_ms() + 3000;
		while ((n = recv(fd, bytes, 2, MSG_PEEK)) == 1 && now_ms() < patience)
			usleep(500);
		if (n == 2 && recv(fd, bytes, 2, 0) == 2)
			send(fd, "k", 1, 0);
	}
	say("%d pairs\n", pairs);
}

/* The switch comes while it goes on. */
static void peek_past_the_beginning(void) { act_cold(send_pairs, peek_at_pairs); }

/* --- what came by a ring that has ended is enough, though nothing follows by TCP --- */

static void leave_without_a_word(int fd)
{
	send(fd, "01234", 5, 0);
	(void)send_with(fd, 0x7777, fd); /* which the kernel refuses */
	shared->stage = 1;
	pause();
}

static void take_what_came(int fd)
{
	char words[64] = "";
	await_stage(1);
	ssize_t n = recv(fd, words, sizeof(words) - 1, 0);
	say("%zd %s\n", n, words);
}

static void nothing_follows(void)
{
	share();
	act(leave_without_a_word, take_what_came);
}

/* --- a peek that waits for more goes on in TCP, and says no more than its buffer holds --- */

static void send_in_two(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	send(fd, "01234", 5, 0);
	while (shared->stage < 1)
		poll(&p, 1, 10); /* where it learns that its bytes are wanted back */
	send(fd, "56789", 5, 0);
	pause();
}

static void peek_ten(struct call *call)
{
	call->result = recv(call->fd, call->words, 10, MSG_PEEK | MSG_WAITALL);
}

static void become_standard_input_under_a_peek(int fd)
{
	struct call call = {.make = peek_ten, .fd = fd};
	await_queued(fd, 5);
	begin_call(&call);
	await_sleep(&call);
	dup2(fd, STDIN_FILENO);
	shared->stage = 1;
	end_call(&call);
	say("%zd %s\n", call.result, call.words);
}

static void peek_of_all(void)
{
	share();
	act(send_in_two, become_standard_input_under_a_peek);
}

/* --- the peer is killed with bytes unread: one of the processes that share this end is told --- */

static void wait_to_be_killed(int fd)
{
	(void)fd;
	shared->client = getpid();
	shared->stage = 1;
	pause();
}

static void say_what_comes(const char *who, int fd)
{
	char byte;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	for (int times = 0; times < 2; times++) {
		int ready = poll(&p, 1, 3000);
		ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
		say("%s: %d, %zd %s\n", who, ready, n, n == -1 ? strerror(errno) : "");
	}
}

static void share_with_a_child(int fd)
{
	siginfo_t info;
	send(fd, "unread", 6, 0);
	await_stage(1);
	kill(shared->client, SIGKILL);
	waitid(P_PID, (id_t)shared->client, &info, WEXITED | WNOWAIT);
	pid_t child = fork();
	if (child == 0) {
		say_what_comes("child", fd);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	say_what_comes("parent", fd);
}

static void told_once(void)
{
	share();
	act(wait_to_be_killed, share_with_a_child);
}

/* --- bytes go by ring, then others by TCP, between a receive's look at the one and at the other:
 * its system call is held up for that (seccomp_unotify(2)) --- */

static _Atomic int held_up = -1; /* calls of the other thread that are held up come from here */

/* The first of them until the peer has sent; the kernel goes on with each afterwards. */
static void *let_the_peer_send_first(void *unused)
{
	while (held_up == -1)
		usleep(1000);
	for (;;) {
		struct seccomp_notif call = {0};
		struct seccomp_notif_resp answer = {.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
		if (ioctl(held_up, SECCOMP_IOCTL_NOTIF_RECV, &call) == -1)
			break;
		if (shared->stage < 3)
			shared->stage = 3;
		await_stage(4);
		answer.id = call.id;
		ioctl(held_up, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
	return unused;
}

static int hold_up_my_receives(int fd)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_recvmsg, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)fd, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(filter) / sizeof(*filter), .filter = filter};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
			    &program);
}

/* Until both are ready to switch, without a byte. */
static void look_until_fused(int fd)
{
	char byte;
	int preloaded = getenv("LD_PRELOAD") != NULL, counted = 0, more = 20;
	for (int64_t end = now_ms() + 10000; more && now_ms() < end; usleep(2000)) {
		(void)!recv(fd, &byte, 1, MSG_DONTWAIT);
		if (!counted && (!preloaded || has_a_segment()))
			counted = ++shared->stage;
		more -= shared->stage >= 2;
	}
}

static void send_by_ring_and_by_tcp(int fd)
{
	uint32_t rate = 1 << 30;
	look_until_fused(fd);
	await_stage(3);
	send(fd, "ring", 4, 0);
	/* An option that only TCP can honour. */
	setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
	send(fd, "tcp", 3, 0);
	shared->stage = 4;
	pause();
}

static void receive_what_was_sent_meanwhile(int fd)
{
	char bytes[8] = "";
	pthread_t thread;
	look_until_fused(fd);
	usleep(100 * 1000); /* the peer's last looks, too */
	pthread_create(&thread, NULL, let_the_peer_send_first, NULL);
	held_up = hold_up_my_receives(fd);
	if (held_up == -1) {
		say("nothing can be held up here\n");
		return;
	}
	if (!getenv("LD_PRELOAD"))
		shared->stage = 3; /* its receives are other calls */
	size_t n = 0;
	for (int64_t end = now_ms() + 5000; n < 7 && now_ms() < end; usleep(1000)) {
		ssize_t more = recv(fd, bytes + n, 7 - n, MSG_DONTWAIT);
		n += more > 0 ? (size_t)more : 0;
	}
	say("%s\n", bytes);
}

static void behind_the_ring(void)
{
	share();
	act_cold(send_by_ring_and_by_tcp, receive_what_was_sent_meanwhile);
}

/* --- shut down for reading while a byte that TCP holds up (TCP_CORK, for 200 ms at the most) is still
 * to come before the ring's. Both ends are here; as often as it takes, for it may come earlier. --- */

static bool shut_before_the_last_byte_of_tcp(int listener, int port)
{
	char bytes[8];
	int on = 1, queued = 0, client = socket(AF_INET, SOCK_STREAM, 0);
	connect_to(client, port);
	int server = accept(listener, NULL, NULL);
	no_delay(server);
	for (int i = 0; i < 3; i++)
		(void)(send(server, "w", 1, 0) + recv(client, bytes, 1, 0));
	setsockopt(client, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
	send(client, "a", 1, 0);
	/* Now it is paired, but for the client's sending no byte goes by the ring. */
	int64_t end = now_ms() + (getenv("LD_PRELOAD") ? 150 : 0);
	for (int rest = 5; rest && now_ms() < end; rest -= has_a_segment())
		(void)(send(server, "w", 1, 0) + recv(client, bytes, 1, 0));
	bool fused = has_a_segment();
	send(client, "b", 1, 0);
	shutdown(server, SHUT_RD);
	ssize_t first = recv(server, bytes, sizeof(bytes), 0);
	ioctl(client, SIOCOUTQ, &queued);
	bool in_time = queued > 0 && (fused || !getenv("LD_PRELOAD"));
	if (in_time) {
		say("first %s", first == 0 ? "the end" : first > 0 ? "bytes" : strerror(errno));
		for (int tries = 0; tries < 100 && (first = recv(server, bytes, 2, 0)) == 0; tries++)
			usleep(20000);
		say(", then %zd bytes: %.*s\n", first, first > 0 ? (int)first : 0, bytes);
		fprintf(stderr, "%s\n", fused ? "fused" : "plain");
	}
	close(client);
	close(server);
	return in_time;
}

static void shut_before_the_ring(void)
{
	int port, listener = listen_somewhere(&port), tries = 0;
	while (!shut_before_the_last_byte_of_tcp(listener, port) && tries < 40)
		tries++;
}

/* --- a receive ends before urgent data, wherever the bytes before them went --- */

/* By TCP, and so is all that follows: what only TCP can carry goes with it. */
static void send_by_tcp(int fd, char *bytes, size_t n)
{
	struct iovec iov = {bytes, n};
	union {
		char room[CMSG_SPACE(sizeof(uint32_t))];
		struct cmsghdr header;
	} control = {.header = {.cmsg_len = CMSG_LEN(sizeof(uint32_t)),
				.cmsg_level = SOL_SOCKET,
				.cmsg_type = SO_TIMESTAMPING}};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	(void)!sendmsg(fd, &msg, 0);
}

static void send_urgent_data(int fd)
{
	send(fd, "x", 1, MSG_OOB);
	send(fd, "def", 3, 0);
	pause();
}

static void send_all_by_tcp(int fd)
{
	send_by_tcp(fd, "abc", 3);
	send_urgent_data(fd);
}

static void send_some_by_ring(int fd)
{
	send(fd, "abc", 3, 0);
	send_by_tcp(fd, "", 0);
	send_urgent_data(fd);
}

static void receive_around_urgent_data(int fd)
{
	char bytes[100];
	usleep(300 * 1000);
	recv(fd, bytes, 1, 0);
	for (int i = 0; i < 2; i++) {
		ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
		say("%.*s ", n > 0 ? (int)n : 0, bytes);
	}
	say("\n");
}

static void urgent_in_tcp(void)
{
	act(send_all_by_tcp, receive_around_urgent_data);
}

static void urgent_behind_the_ring(void)
{
	act(send_some_by_ring, receive_around_urgent_data);
}

/* --- a list of many buffers, by TCP beside a ring --- */

enum { BUFFERS = 40, EACH = 100 };

static void send_for_many_buffers(int fd)
{
	static char bytes[BUFFERS * EACH];
	for (int i = 0; i < 3; i++)
		send_by_tcp(fd, bytes, sizeof(bytes));
	pause();
}

static void receive_into_many_buffers(int fd)
{
	static char bytes[BUFFERS][EACH];
	static const int flags[3] = {MSG_PEEK, 0, MSG_TRUNC};
	struct iovec iov[BUFFERS];
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = BUFFERS};
	usleep(300 * 1000);
	for (int i = 0; i < BUFFERS; i++)
		iov[i] = (struct iovec){bytes[i], EACH};
	for (int i = 0; i < 3; i++)
		say("%zd ", recvmsg(fd, &msg, flags[i]));
	say("%zd\n", readv(fd, iov, BUFFERS));
}

static void many_buffers(void)
{
	act(send_for_many_buffers, receive_into_many_buffers);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"two-sleepers", two_sleepers},
		{"wait-for-all", wait_for_all},
		{"low-water", low_water},
		{"low-water-beyond-the-ring", low_water_beyond_the_ring},
		{"truncated", truncated},
		{"peek-past-the-end", peek_past_the_end},
		{"peek-past-the-beginning", peek_past_the_beginning},
		{"nothing-follows", nothing_follows},
		{"peek-of-all", peek_of_all},
		{"told-once", told_once},
		{"behind-the-ring", behind_the_ring},
		{"shut-before-the-ring", shut_before_the_ring},
		{"urgent-in-tcp", urgent_in_tcp},
		{"urgent-behind-the-ring", urgent_behind_the_ring},
		{"many-buffers", many_buffers},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
