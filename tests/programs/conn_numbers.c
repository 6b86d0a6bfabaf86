/* conn_numbers.c - the number that a call began with is another file's before the call is over,
 * or another file's all along, in a child that runs in our memory. */
#include "resend.h"
#include "shared_page.h"

#include <fcntl.h>

extern char **environ;

static int another_file[2];

static void have_another_file(void)
{
	socketpair(AF_UNIX, SOCK_STREAM, 0, another_file);
}

/* Bytes that a call on the socket has written to the file instead. */
static void say_what_it_got(void)
{
	char words[32] = "";
	ssize_t n = recv(another_file[1], words, sizeof(words) - 1, MSG_DONTWAIT);
	say("the other file got %s\n", n == -1 ? "nothing" : n > 0 ? words : "its end");
}

/* Bytes of the file that a call on the socket has not read instead. */
static void say_what_it_has(void)
{
	char words[32] = "";
	ssize_t n = recv(another_file[0], words, sizeof(words) - 1, MSG_DONTWAIT);
	say("the other file has %s\n", n > 0 ? words : "nothing");
}

static void receive(struct call *call)
{
	call->result = recv(call->fd, call->words, sizeof(call->words) - 1, 0);
}

/* --- while what the peer did not read is sent again by TCP: it all arrives, and only there --- */

static void want_all_and_count(int fd)
{
	static char bytes[65536];
	await_stage(1);
	want_all_by_tcp(fd);
	shared->stage = 2;
	await_stage(3);
	usleep(200 * 1000); /* the other end closes it meanwhile, or waits for us to read */
	for (ssize_t n; (n = recv(fd, bytes, sizeof(bytes), 0)) > 0;)
		shared->got += n;
	shared->stage = 4;
	pause();
}

static void look_in(struct call *call)
{
	char byte;
	(void)!recv(call->fd, &byte, 1, MSG_DONTWAIT);
}

static void give_up_during_a_resend(int fd, int to_another_file)
{
	static char bytes[65536];
	int small = 16 * 1024;
	for (ssize_t n; (n = send(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0;)
		shared->sent += n;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	keep_send_buffers_small();
	have_another_file();
	shared->stage = 1;
	await_stage(2);
	struct call call = {.make = look_in, .fd = fd};
	begin_call(&call);
	await_sleep(&call);
	shared->stage = 3;
	if (to_another_file)
		dup2(another_file[0], fd);
	else
		close(fd);
	await_stage(4);
	end_call(&call);
	say_what_it_got();
	say("the peer got %s\n", shared->got == shared->sent ? "all" : "less");
}

static void replace(int fd)
{
	give_up_during_a_resend(fd, 1);
}

static void close_it(int fd)
{
	give_up_during_a_resend(fd, 0);
}

static void replaced_in_a_resend(void)
{
	act(want_all_and_count, replace);
}

static void closed_in_a_resend(void)
{
	act(want_all_and_count, close_it);
}

/* --- while a first send waits for the other end, which has not looked yet (--eager) --- */

static void accept_and_look_late(int listener)
{
	int fd = accept(listener, NULL, NULL);
	await_stage(1);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	if (poll(&p, 1, 3000) == 1)
		(void)!recv(fd, shared->words, sizeof(shared->words) - 1, 0);
	shared->stage = 2;
	warm(fd, 0);
	pause();
}

static void send_word(struct call *call)
{
	call->result = send(call->fd, "word", 4, 0);
}

static void replaced_in_a_first_send(void)
{
	int port, listener = listen_somewhere(&port);
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		accept_and_look_late(listener);
		_exit(0);
	}
	close(listener);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	connect_to(fd, port);
	int second_name = dup(fd);
	have_another_file();
	struct call call = {.make = send_word, .fd = fd};
	begin_call(&call);
	await_sleep(&call);
	dup2(another_file[0], fd);
	end_call(&call);
	shared->stage = 1;
	await_stage(2);
	say_what_it_got();
	say("sent %zd, the peer got %s\n", call.result, shared->words);
	warm(second_name, 1);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* --- while a receive spins, which the test has it do for long; the socket has a second name --- */

static void send_mine(int fd)
{
	await_stage(1);
	send(fd, "mine", 4, 0);
	pause();
}

/* Until it has used so much time, or sleeps. */
static void await_spin(struct call *call)
{
	clockid_t clock;
	struct timespec used = {0, 0};
	pthread_getcpuclockid(call->thread, &clock);
	for (int64_t end = now_ms() + 5000; used.tv_nsec < 5000000 && now_ms() < end; usleep(1000)) {
		if (call->tid && sleeps(getpid(), call->tid))
			break;
		clock_gettime(clock, &used);
	}
}

static void replace_under_a_spin(int fd)
{
	struct call call = {.make = receive, .fd = fd};
	(void)dup(fd);
	have_another_file();
	send(another_file[1], "others'", 7, 0);
	begin_call(&call);
	await_spin(&call);
	dup2(another_file[0], fd);
	await_sleep(&call);
	shared->stage = 1;
	end_call(&call);
	say("received \"%s\"\n", call.words);
	say_what_it_has();
}

static void replaced_in_a_spin(void)
{
	act(send_mine, replace_under_a_spin);
}

/* --- while a receive sleeps, and a send, which go on in TCP; the socket has a second name --- */

static void send_mine_by_tcp(int fd)
{
	uint32_t rate = 1 << 30;
	await_stage(1);
	setsockopt(fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
	usleep(100 * 1000); /* the receive learns that the ring has ended, and nothing more */
	send(fd, "mine", 4, 0);
	pause();
}

static void replace_one_name(int fd)
{
	struct call call = {.make = receive, .fd = fd};
	(void)dup(fd);
	have_another_file();
	send(another_file[1], "others'", 7, 0);
	begin_call(&call);
	await_sleep(&call);
	dup2(another_file[0], fd);
	shared->stage = 1;
	end_call(&call);
	say("received \"%s\"\n", call.words);
	say_what_it_has();
}

static void replaced_in_a_receive(void)
{
	act(send_mine_by_tcp, replace_one_name);
}

static void want_all_and_read(int fd)
{
	static char bytes[65536];
	await_stage(1);
	want_all_by_tcp(fd);
	for (ssize_t n; (n = recv(fd, bytes, sizeof(bytes), 0)) > 0;)
		if (memchr(bytes, 'w', (size_t)n))
			shared->stage = 2;
}

static void replace_one_name_of_a_full_one(int fd)
{
	static char bytes[65536];
	struct call call = {.make = send_word, .fd = fd};
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	(void)dup(fd);
	have_another_file();
	begin_call(&call);
	await_sleep(&call);
	dup2(another_file[0], fd);
	shared->stage = 1;
	end_call(&call);
	await_stage(2);
	say("sent %zd, the peer got %s\n", call.result, shared->stage == 2 ? "it" : "nothing");
	say_what_it_got();
}

static void replaced_in_a_send(void)
{
	act(want_all_and_read, replace_one_name_of_a_full_one);
}

/* --- in a child of vfork, before it becomes another program: that sees to the sockets which it
 * inherits, and the peer of one of ours wants its bytes back at that moment --- */

static int second_listener, second_port;

static void leave_one_unread_and_want_the_other(int fd)
{
	int second = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval patience = {3, 0};
	connect_to(second, second_port);
	warm(second, 1);
	send(fd, "unread", 6, 0);
	await_stage(1);
	want_all_by_tcp(second);
	shared->stage = 2;
	await_stage(3);
	setsockopt(second, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)!recv(second, shared->words, 8, MSG_WAITALL);
	shared->stage = 4;
	pause();
}

static void start_a_program(int fd, int with_another_file)
{
	char byte, *const argv[] = {"true", NULL};
	int second = accept(second_listener, NULL, NULL), status;
	no_delay(second);
	warm(second, 0);
	have_another_file();
	await_queued(fd, 6);
	send(second, "12345678", 8, 0);
	shared->stage = 1;
	await_stage(2);
	pid_t child = vfork();
	if (child == 0) {
		if (with_another_file)
			dup2(another_file[0], second);
		else
			close(second);
		execve("/bin/true", argv, environ);
		_exit(1);
	}
	waitpid(child, &status, 0);
	say("the child ended with %d\n", status);
	say_what_it_got();
	ssize_t n = recv(second, &byte, 1, MSG_DONTWAIT);
	say("here: %zd %s\n", n, strerror(errno));
	shared->stage = 3;
	await_stage(4);
	say("the peer got \"%s\"\n", shared->words);
}

static void start_a_program_without(int fd)
{
	start_a_program(fd, 0);
}

static void start_a_program_with_another(int fd)
{
	start_a_program(fd, 1);
}

static void closed_in_a_vfork_child(void)
{
	second_listener = listen_somewhere(&second_port);
	act(leave_one_unread_and_want_the_other, start_a_program_without);
}

static void replaced_in_a_vfork_child(void)
{
	second_listener = listen_somewhere(&second_port);
	act(leave_one_unread_and_want_the_other, start_a_program_with_another);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"replaced-in-a-resend", replaced_in_a_resend},
		{"closed-in-a-resend", closed_in_a_resend},
		{"replaced-in-a-first-send", replaced_in_a_first_send},
		{"replaced-in-a-spin", replaced_in_a_spin},
		{"replaced-in-a-receive", replaced_in_a_receive},
		{"replaced-in-a-send", replaced_in_a_send},
		{"closed-in-a-vfork-child", closed_in_a_vfork_child},
		{"replaced-in-a-vfork-child", replaced_in_a_vfork_child},
		{NULL, NULL},
	};
	share();
	alarm(20);
	return act_out(scenarios, argc, argv);
}
