/* slept_over.c - sleeps that nobody ended: each scenario had a thread asleep with what it waited for there. */
#include "sleepers.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/resource.h>

static void wait_for_input(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct epoll_event event;
	if (strcmp(way, "poll") == 0)
		poll(&p, 1, timeout_ms);
	else if (strcmp(way, "epoll") == 0)
		epoll_wait(set, &event, 1, timeout_ms);
}

/* Where the others come first, if they are to. */
static void receive_in_that_way(struct call *call)
{
	char bytes[1000]; /* and leaves some to who waits beside it */
	take_cpu(0, false);
	wait_for_input(call->fd, -1);
	call->result = recv(call->fd, bytes, sizeof(bytes), 0);
}

static void send_a_byte_when_told(int fd)
{
	take_cpu(1, false);
	await_stage(1);
	usleep(30000);
	send(fd, "x", 1, 0);
	shared->stage = 2;
	pause();
}

/* --- the writer waits for room, the reader for as many bytes as the writer never has under way --- */

static int send_buffer, low_water;

static void write_while_there_is_room(int fd)
{
	static char bytes[4096];
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer));
	await_stage(1);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	for (long sent = 0; sent < 1000000 && poll(&p, 1, PATIENCE_MS) == 1;) {
		ssize_t n = send(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		sent += n > 0 ? n : 0;
	}
	pause();
}

static void wait_for_the_low_water_mark(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low_water, sizeof(low_water));
	shared->stage = 1;
	say("%s\n", poll(&p, 1, PATIENCE_MS) == 1 ? "woken" : "asleep, and so is the writer");
}

static void bounded_writer(void)
{
	static const int sizes[][2] = {{32768, 300000}, {4000, 60000}};
	for (int i = 0; i < 2; i++) {
		send_buffer = sizes[i][0];
		low_water = sizes[i][1];
		shared->stage = 0;
		act(write_while_there_is_room, wait_for_the_low_water_mark);
	}
}

/* --- the low-water mark is reached where the stream moves between TCP and the ring --- */

enum { ROUNDS = 4 };

static int calls_before; /* it is paired in the midst of the rounds */

static void send_corked_then_more(int fd)
{
	int on = 1;
	char bytes[1000] = "";
	take_cpu(1, false);
	for (int i = 0; i < calls_before; i++)
		(void)(send(fd, bytes, 1, 0) + recv(fd, bytes, 1, 0));
	setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
	do {
		send(fd, bytes, 10, 0);
		usleep(150000);
		send(fd, bytes, 1000, 0);
	} while (recv(fd, bytes, 1, 0) == 1);
}

static void receive_all_of_each(int fd)
{
	char bytes[4000];
	int least = 100;
	for (int i = 0; i < calls_before; i++)
		(void)(recv(fd, bytes, 1, 0) + send(fd, bytes, 1, 0));
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least));
	set = -1;
	enter_set(fd, EPOLLIN);
	for (int round = 0; round < ROUNDS; round++) {
		ssize_t sum = 0, n;
		for (int64_t end = now_ms() + 120; now_ms() < end; usleep(3000)) {
			n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
			sum += n > 0 ? n : 0;
		}
		for (; sum < 1010; sum += n) {
			wait_for_input(fd, -1);
			if ((n = recv(fd, bytes, sizeof(bytes), 0)) <= 0)
				break;
		}
		say("%zd ", sum);
		send(fd, "x", 1, 0);
	}
	say("\n");
	say_whether_fused();
}

static void low_water_at_the_switch(void)
{
	for (calls_before = 1; calls_before <= 4; calls_before += 3)
		act_with(NULL, send_corked_then_more, receive_all_of_each);
}

static void send_by_ring_then_by_tcp(int fd)
{
	char bytes[60] = "";
	int on = 1;
	await_stage(1);
	usleep(100000);
	send(fd, bytes, 60, 0);
	usleep(50000);
	setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)); /* which only TCP has */
	usleep(50000);
	send(fd, bytes, 60, 0);
	pause();
}

static void receive_a_hundred(int fd)
{
	char bytes[400];
	int least = 100;
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least));
	shared->stage = 1;
	say("%zd\n", recv(fd, bytes, sizeof(bytes), 0));
}

static void low_water_behind_the_ring(void)
{
	act(send_by_ring_then_by_tcp, receive_a_hundred);
}

/* --- TCP's last bytes before the ring go to another thread --- */

static void take_tcps_last_bytes(int fd)
{
	char bytes[4000];
	for (int i = 0; i < calls_before; i++)
		(void)(recv(fd, bytes, 1, 0) + send(fd, bytes, 1, 0));
	set = -1;
	enter_set(fd, EPOLLIN);
	for (int round = 0; round < ROUNDS; round++) {
		for (int64_t end = now_ms() + 110; now_ms() < end; usleep(3000))
			recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_PEEK);
		struct call call = sleeper(receive_in_that_way, fd);
		begin_call(&call);
		usleep(15000);
		take_cpu(0, true);
		ssize_t n = recv(fd, bytes, 10, 0);
		take_cpu(0, false);
		say_of(&call);
		for (n += call.result; n < 1010;)
			n += recv(fd, bytes, sizeof(bytes), 0);
		send(fd, "x", 1, 0);
	}
	say_whether_fused();
}

static void two_at_the_switch(void)
{
	for (calls_before = 1; calls_before <= 4; calls_before += 3)
		act_with(NULL, send_corked_then_more, take_tcps_last_bytes);
}

/* --- a forked child hears the doorbell first --- */

static void hear_first(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	take_cpu(0, true);
	shared->stage = 1;
	poll(&p, 1, PATIENCE_MS);
	pause();
}

static void sleep_then_fork(int fd)
{
	struct call call = sleeper(receive_in_that_way, fd);
	enter_set(fd, EPOLLIN);
	begin_call(&call);
	await_sleep(&call);
	pid_t child = fork();
	if (child == 0)
		hear_first(fd);
	say_of(&call);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void asleep_before_a_fork(void)
{
	act(send_a_byte_when_told, sleep_then_fork);
}

static void add_what_a_child_shares(int fd)
{
	struct call call = sleeper(receive_in_that_way, fd);
	set = epoll_create1(0);
	begin_call(&call);
	await_sleep(&call);
	pid_t child = fork();
	if (child == 0) {
		while (!shared->sent)
			usleep(1000);
		hear_first(fd);
	}
	enter_set(fd, EPOLLIN);
	shared->sent = 1;
	say_of(&call);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void added_while_shared(void)
{
	way = "epoll";
	act(send_a_byte_when_told, add_what_a_child_shares);
}

/* --- another thread leaves the ring while the bell rings --- */

static void enter_a_second_set(int fd)
{
	struct call call = sleeper(receive_in_that_way, fd);
	struct epoll_event event = {.events = EPOLLIN};
	way = "recv";
	enter_set(fd, EPOLLIN);
	begin_call(&call);
	await_sleep(&call);
	take_cpu(0, true);
	shared->stage = 1;
	for (int64_t end = now_ms() + 500; shared->stage < 2 && now_ms() < end;)
		;
	epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, fd, &event);
	take_cpu(0, false);
	say_of(&call);
}

static void left_by_another(void)
{
	act(send_a_byte_when_told, enter_a_second_set);
}

/* --- the peer's doorbell is full, and ours is to tell a sleeper of more --- */

static void send_and_go_away(int fd)
{
	char bytes[1000] = "";
	send(fd, bytes, sizeof(bytes), 0);
	shared->stage = 1;
	pause();
}

static void wait_once(struct call *call)
{
	struct epoll_event event;
	(void)call;
	epoll_wait(set, &event, 1, -1);
}

static void arm_again(int fd)
{
	struct call call = sleeper(wait_once, fd);
	struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
	char byte;
	enter_set(fd, event.events);
	await_stage(1);
	await_queued(fd, 1000);
	epoll_wait(set, &event, 1, PATIENCE_MS);
	dup2(fd, 0); /* so the ring is left, once the peer is back */
	begin_call(&call);
	await_sleep(&call);
	for (int i = 0; i < 100; i++)
		recv(fd, &byte, 1, 0);
	event.events = EPOLLIN | EPOLLONESHOT;
	epoll_ctl(set, EPOLL_CTL_MOD, fd, &event);
	say_of(&call);
}

static void armed_again(void)
{
	act(send_and_go_away, arm_again);
}

/* --- room, after sends past the C library --- */

static void read_when_told(int fd)
{
	static char bytes[1 << 20];
	await_stage(1);
	while (recv(fd, bytes, sizeof(bytes), 0) > 0)
		;
}

static void fill_by_system_calls(int fd)
{
	static char bytes[65536];
	struct epoll_event event;
	enter_set(fd, EPOLLIN | EPOLLOUT | EPOLLET);
	epoll_wait(set, &event, 1, PATIENCE_MS);
	while (syscall(SYS_sendto, fd, bytes, sizeof(bytes), MSG_DONTWAIT, NULL, 0) > 0)
		;
	while (epoll_wait(set, &event, 1, 50) > 0)
		;
	shared->stage = 1;
	say("%s\n", epoll_wait(set, &event, 1, PATIENCE_MS) == 1 ? "woken" : "asleep with room");
}

static void room_for_system_calls(void)
{
	act(read_when_told, fill_by_system_calls);
}

/* --- a vfork child sends to one who is leaving the ring --- */

static void *let_the_child_send(void *unused)
{
	usleep(100000);
	shared->stage = 2;
	return unused;
}

static void leave_meanwhile(int fd)
{
	pthread_t thread;
	char bytes[200];
	await_stage(1);
	await_queued(fd, 100);
	pthread_create(&thread, NULL, let_the_child_send, NULL);
	dup2(fd, 0);
	for (ssize_t n; shared->got < 101 && (n = recv(fd, bytes, sizeof(bytes), 0)) > 0;)
		shared->got += n;
	pause();
}

static void send_in_a_vfork_child(int fd)
{
	char bytes[100] = "";
	send(fd, bytes, 100, 0);
	if (vfork() == 0) {
		shared->stage = 1;
		while (shared->stage < 2)
			usleep(1000);
		shared->sent = send(fd, "x", 1, 0);
		_exit(0);
	}
	for (int64_t end = now_ms() + PATIENCE_MS; shared->got < 101 && now_ms() < end; usleep(5000))
		;
	say("sent %ld, in all %ld\n", shared->sent, shared->got);
}

static void sent_by_a_vfork_child(void)
{
	act(leave_meanwhile, send_in_a_vfork_child);
}

/* --- the doorbell's number is somebody else's from now on --- */

static void allow_few_numbers(void)
{
	struct rlimit limit = {64, 64};
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void take_over_numbers(int fd)
{
	struct call call = sleeper(receive_in_that_way, fd);
	char path[64], what[64];
	int quiet[2], taken[64], n = 0;
	if (pipe(quiet) == -1)
		return;
	enter_set(fd, EPOLLIN);
	begin_call(&call);
	await_sleep(&call);
	for (int number = 32; number < 64; number++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", number);
		if (readlink(path, what, sizeof(what)) > 0 && strncmp(what, "socket:", 7) == 0)
			taken[n++] = number;
	}
	while (n)
		dup2(quiet[0], taken[--n]);
	shared->stage = 1;
	say_of(&call);
}

static void number_taken_over(void)
{
	allow_few_numbers();
	act(send_a_byte_when_told, take_over_numbers);
}

static char *late_page;
static int faults;

static void *answer_the_fault(void *unused)
{
	struct uffd_msg message;
	struct pollfd p = {.fd = faults, .events = POLLIN};
	poll(&p, 1, PATIENCE_MS);
	(void)!read(faults, &message, sizeof(message));
	shared->stage = 2;
	await_stage(3);
	usleep(50000);
	struct uffdio_zeropage page = {.range = {(uintptr_t)late_page, 4096}};
	ioctl(faults, UFFDIO_ZEROPAGE, &page);
	return unused;
}

/* Held up in the midst of copying. */
static void send_slowly(int fd)
{
	struct uffdio_api api = {.api = UFFD_API};
	pthread_t thread;
	char *bytes = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	late_page = bytes + 4096;
	bytes[0] = 'x';
	struct uffdio_register area = {.range = {(uintptr_t)late_page, 4096},
				       .mode = UFFDIO_REGISTER_MODE_MISSING};
	ioctl(faults, UFFDIO_API, &api);
	ioctl(faults, UFFDIO_REGISTER, &area);
	pthread_create(&thread, NULL, answer_the_fault, NULL);
	await_stage(1);
	send(fd, bytes, 8192, 0);
	pause();
}

static void take_all_numbers(int fd)
{
	struct call call = sleeper(receive_in_that_way, fd);
	int quiet[2];
	if (pipe(quiet) == -1)
		return;
	enter_set(fd, EPOLLIN);
	begin_call(&call);
	await_sleep(&call);
	shared->stage = 1;
	await_stage(2);
	while (dup(quiet[0]) >= 0)
		;
	shared->stage = 3;
	say_of(&call);
}

static void number_given_up(void)
{
	allow_few_numbers();
	act(send_slowly, take_all_numbers);
}

/* --- a set and a bell that a forked child has from its parent --- */

static long cpu_ms(void)
{
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000 +
	       (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1000;
}

static void hear_of_a_death(int fd)
{
	struct epoll_event event;
	enter_set(fd, EPOLLIN | EPOLLET);
	let_it_go_cold();
	pid_t child = fork();
	if (child == 0) {
		let_it_go_cold();
		kill(shared->client, SIGKILL);
		long before = cpu_ms();
		for (int64_t end = now_ms() + 1000; now_ms() < end;)
			epoll_wait(set, &event, 1, 100);
		say("%s\n", cpu_ms() - before < 300 ? "rests" : "never rests");
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

static void death_in_an_inherited_set(void)
{
	act(pause_as_client, hear_of_a_death);
}

static void go_on_in_a_child(int fd)
{
	enter_set(fd, EPOLLIN);
	let_it_go_cold();
	pid_t child = fork();
	if (child == 0) {
		struct rusage before, after;
		struct epoll_event event;
		close(set);
		set = -1;
		enter_set(fd, EPOLLIN);
		let_it_go_cold();
		shared->stage = 3;
		usleep(100000);
		let_it_go_cold();
		getrusage(RUSAGE_SELF, &before);
		epoll_wait(set, &event, 1, 500);
		getrusage(RUSAGE_SELF, &after);
		say("%s\n", after.ru_nvcsw - before.ru_nvcsw < 20 ? "rests" : "naps");
		_exit(0);
	}
	await_stage(3);
	close(fd);
	waitpid(child, NULL, 0);
}

static void left_to_a_child(void)
{
	act(pause_as_client, go_on_in_a_child);
}

static void hear_as_one_of_two(int fd)
{
	enter_set(fd, EPOLLIN);
	let_it_go_cold();
	pid_t first = fork();
	if (first == 0) {
		struct call call = sleeper(receive_in_that_way, fd);
		way = "epoll";
		await_stage(3);
		let_it_go_cold();
		shared->sent = 1;
		usleep(50000);
		let_it_go_cold();
		begin_call(&call);
		await_sleep(&call);
		shared->stage = 0;
		shared->got = 1;
		say_of(&call);
		_exit(0);
	}
	pid_t second = fork();
	if (second == 0) {
		while (!shared->sent)
			usleep(1000);
		_exit(0);
	}
	close(fd);
	shared->stage = 3;
	waitpid(second, NULL, 0);
	waitpid(first, NULL, 0);
}

static void send_once_it_sleeps(int fd)
{
	for (int64_t end = now_ms() + 10000; !shared->got && now_ms() < end; usleep(1000))
		;
	send(fd, "x", 1, 0);
	pause();
}

static void left_to_one_of_two(void)
{
	act(send_once_it_sleeps, hear_as_one_of_two);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"bounded-writer", bounded_writer},
		{"low-water-at-the-switch", low_water_at_the_switch},
		{"low-water-behind-the-ring", low_water_behind_the_ring},
		{"two-at-the-switch", two_at_the_switch},
		{"asleep-before-a-fork", asleep_before_a_fork},
		{"added-while-shared", added_while_shared},
		{"left-by-another", left_by_another},
		{"armed-again", armed_again},
		{"room-for-system-calls", room_for_system_calls},
		{"sent-by-a-vfork-child", sent_by_a_vfork_child},
		{"number-taken-over", number_taken_over},
		{"number-given-up", number_given_up},
		{"death-in-an-inherited-set", death_in_an_inherited_set},
		{"left-to-a-child", left_to_a_child},
		{"left-to-one-of-two", left_to_one_of_two},
		{NULL, NULL},
	};
	return act_out_in_a_way(scenarios, argc, argv, "recv");
}
