/* What happens to a client's socket before connect(): epoll_ctl, dup, fork, exec, listen; and
 * sockets that are connected by somebody else, or again. The parent is the client; its server,
 * a forked child, first warms the connection up and then sends back what it gets.
 */
#include "two_ends.h"

#include "passing.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

enum { ROUNDS = 30, PATIENCE_MS = 5000 };

static pid_t server;

static void echo(int fd)
{
	char bytes[4096];
	ssize_t n;
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		send(fd, bytes, (size_t)n, MSG_NOSIGNAL);
	close(fd);
}

/* A socket that is not to be fused can't tell when it is warm enough. */
static void knock(int fd, int is_client)
{
	int rounds = 0;
	for (char c = 'k'; c != 'm';) {
		if (is_client && ++rounds >= 200)
			c = 'm';
		if (is_client && send(fd, &c, 1, 0) != 1)
			abort();
		if (recv(fd, &c, 1, 0) != 1)
			abort();
		if (!is_client && send(fd, &c, 1, 0) != 1)
			abort();
		if (is_client)
			usleep(1000);
	}
	if (is_client)
		say_whether_fused();
}

static int start_server(void (*warm_up)(int, int))
{
	int port, listener = listen_somewhere(&port);
	server = fork();
	if (server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			int fd = accept(listener, NULL, NULL);
			no_delay(fd);
			warm_up(fd, 0);
			echo(fd);
		}
	}
	close(listener);
	return port;
}

static void stop_server(void)
{
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
}

static void set_nonblocking(int fd, int on)
{
	int flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

static void enter(int set, int op, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};
	if (epoll_ctl(set, op, fd, &event) == -1)
		say("epoll_ctl: %s\n", strerror(errno));
}

static uint32_t wait_in(int set)
{
	struct epoll_event events[2]; /* room for more than there can be */
	return epoll_wait(set, events, 2, PATIENCE_MS) == 1 ? events[0].events : 0;
}

/* An edge-triggered entry may be reported for what is known already. */
static int input_in(int set)
{
	uint32_t events;
	do
		events = wait_in(set);
	while (events && !(events & EPOLLIN));
	return events != 0;
}

static int wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};
	return poll(&p, 1, PATIENCE_MS) == 1 ? p.revents : 0;
}

/* Bytes out by one descriptor and back by another, each announced by the set. */
static void rounds_in_set(int set, int out, int in)
{
	int done = 0;
	for (; done < ROUNDS; done++) {
		char sent = (char)('a' + done % 26), got = 0;
		if (send(out, &sent, 1, 0) != 1 || !input_in(set) ||
		    recv(in, &got, 1, MSG_DONTWAIT) != 1 || got != sent)
			break;
	}
	say("%d rounds\n", done);
}

static void rounds_in_poll(int out, int in)
{
	int done = 0;
	for (; done < ROUNDS; done++) {
		char sent = (char)('a' + done % 26), got = 0;
		if (send(out, &sent, 1, 0) != 1 || !(wait_for(in, POLLIN) & POLLIN) ||
		    recv(in, &got, 1, MSG_DONTWAIT) != 1 || got != sent)
			break;
	}
	say("%d rounds\n", done);
}

static void must(int r)
{
	if (r == -1)
		abort();
}

/* --- epoll --- */

static void epoll_before_connect(void)
{
	int port = start_server(warm), set = epoll_create1(0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	enter(set, EPOLL_CTL_ADD, fd, EPOLLIN);
	must(connect_to(fd, port));
	warm(fd, 1);
	rounds_in_set(set, fd, fd);
	shutdown(fd, SHUT_WR);
	say("at the end %x\n", wait_in(set));
}

/* As Boost.Asio does it: an entry at open, edge-triggered, that stays. */
static void edges_before_connect(void)
{
	int port = start_server(warm), set = epoll_create1(0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	enter(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLPRI | EPOLLERR | EPOLLHUP | EPOLLET);
	say("unconnected %x\n", wait_in(set));
	int r = connect_to(fd, port);
	enter(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLERR | EPOLLHUP | EPOLLET);
	say("connect %d, then %x\n", r, wait_in(set));
	set_nonblocking(fd, 0);
	warm(fd, 1);
	set_nonblocking(fd, 1);
	rounds_in_set(set, fd, fd);
}

/* A program that has heard of no room since it connected hears of it now. */
static void room_since_connect(void)
{
	int port = start_server(warm), set = epoll_create1(0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	enter(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLET);
	say("unconnected %x\n", wait_in(set));
	must(connect_to(fd, port));
	warm(fd, 1);
	say("connected %x\n", wait_in(set));
	rounds_in_set(set, fd, fd);
}

static void two_sets_before_connect(void)
{
	int port = start_server(knock), one = epoll_create1(0), other = epoll_create1(0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	enter(one, EPOLL_CTL_ADD, fd, EPOLLIN);
	enter(other, EPOLL_CTL_ADD, fd, EPOLLIN);
	must(connect_to(fd, port));
	knock(fd, 1);
	rounds_in_set(one, fd, fd);
	rounds_in_set(other, fd, fd);
}

static void dup_in_set_before_connect(void)
{
	int port = start_server(warm), set = epoll_create1(0);
	int fd = socket(AF_INET, SOCK_STREAM, 0), copy = dup(fd);
	enter(set, EPOLL_CTL_ADD, copy, EPOLLIN);
	must(connect_to(fd, port));
	warm(fd, 1);
	rounds_in_set(set, fd, copy);
	close(fd);
	rounds_in_set(set, copy, copy);
}

/* The entry in the set outlives the descriptor it was made for. */
static void closed_in_set_before_connect(void)
{
	int port = start_server(knock), set = epoll_create1(0);
	int fd = socket(AF_INET, SOCK_STREAM, 0), copy = dup(fd);
	enter(set, EPOLL_CTL_ADD, fd, EPOLLIN);
	close(fd);
	must(connect_to(copy, port));
	knock(copy, 1);
	rounds_in_set(set, copy, copy);
}

static void deleted_before_connect(void)
{
	int port = start_server(warm), one = epoll_create1(0), other = epoll_create1(0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	enter(one, EPOLL_CTL_ADD, fd, EPOLLIN);
	enter(one, EPOLL_CTL_DEL, fd, 0);
	enter(other, EPOLL_CTL_ADD, fd, EPOLLIN);
	must(connect_to(fd, port));
	warm(fd, 1);
	rounds_in_set(other, fd, fd);
}

static void oneshot_before_connect(void)
{
	int port = start_server(knock), set = epoll_create1(0);
	int fd = socket(AF_INET, SOCK_STREAM, 0), done = 0;
	enter(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT);
	say("unconnected %x\n", wait_in(set));
	must(connect_to(fd, port));
	knock(fd, 1);
	for (char c = 'o'; done < ROUNDS; done++) {
		enter(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
		if (send(fd, &c, 1, 0) != 1 || !input_in(set) || recv(fd, &c, 1, MSG_DONTWAIT) != 1)
			break;
	}
	say("%d rounds\n", done);
}

static void nested_before_connect(void)
{
	int port = start_server(knock), inner = epoll_create1(0), outer = epoll_create1(0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	enter(inner, EPOLL_CTL_ADD, fd, EPOLLIN);
	enter(outer, EPOLL_CTL_ADD, inner, EPOLLIN);
	must(connect_to(fd, port));
	knock(fd, 1);
	rounds_in_set(outer, fd, fd);
}

struct addition {
	int set, fd;
	pthread_barrier_t *together;
};

static void *add(void *context)
{
	struct addition *it = context;
	pthread_barrier_wait(it->together);
	enter(it->set, EPOLL_CTL_ADD, it->fd, EPOLLIN);
	return NULL;
}

static void added_while_connecting(void)
{
	int port = start_server(warm), set = epoll_create1(0);
	for (int i = 0; i < 10; i++) {
		pthread_barrier_t together;
		pthread_t thread;
		pthread_barrier_init(&together, NULL, 2);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		struct addition it = {set, fd, &together};
		pthread_create(&thread, NULL, add, &it);
		pthread_barrier_wait(&together);
		must(connect_to(fd, port));
		pthread_join(thread, NULL);
		warm(fd, 1);
		rounds_in_set(set, fd, fd);
		close(fd);
	}
}

static void *add_soon(void *context)
{
	struct addition *it = context;
	usleep((unsigned)rand() % 4000);
	enter(it->set, EPOLL_CTL_ADD, it->fd, EPOLLIN);
	return NULL;
}

static void added_while_pairing(void)
{
	int port = start_server(warm), set = epoll_create1(0);
	for (int i = 0; i < 40; i++) {
		pthread_t thread;
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		must(connect_to(fd, port));
		struct addition it = {.set = set, .fd = fd};
		pthread_create(&thread, NULL, add_soon, &it);
		warm(fd, 1);
		pthread_join(thread, NULL);
		rounds_in_set(set, fd, fd);
		close(fd);
	}
}

/* --- dup --- */

static void dup_before_connect(void)
{
	int port = start_server(warm), fd = socket(AF_INET, SOCK_STREAM, 0), copy = dup(fd);
	must(connect_to(fd, port));
	warm(fd, 1);
	rounds_in_poll(fd, copy);
	rounds_in_poll(copy, fd);
	close(fd);
	rounds_in_poll(copy, copy);
}

/* printf writes there past every library. */
static void stdin_before_connect(void)
{
	int port = start_server(knock), fd = socket(AF_INET, SOCK_STREAM, 0);
	dup2(fd, STDIN_FILENO);
	must(connect_to(fd, port));
	knock(fd, 1);
	rounds_in_poll(fd, STDIN_FILENO);
}

/* --- other processes --- */

static void await_byte(int fd)
{
	char c;
	(void)!read(fd, &c, 1);
}

static void expect_end_of(pid_t child)
{
	int status;
	waitpid(child, &status, 0);
	say("child: %d\n", status);
}

static void fork_before_connect(void)
{
	int port = start_server(knock), fd = socket(AF_INET, SOCK_STREAM, 0), go[2];
	must(pipe(go));
	pid_t child = fork();
	if (child == 0) {
		await_byte(go[0]);
		rounds_in_poll(fd, fd);
		_exit(0);
	}
	must(connect_to(fd, port));
	knock(fd, 1);
	(void)!write(go[1], "g", 1);
	expect_end_of(child);
	rounds_in_poll(fd, fd);
}

static void program_gets_it_before_connect(void)
{
	int port = start_server(knock), fd = socket(AF_INET, SOCK_STREAM, 0), go[2];
	must(pipe(go));
	pid_t child = fork();
	if (child == 0) {
		await_byte(go[0]);
		dup2(fd, STDIN_FILENO);
		execl("/usr/bin/head", "head", "-c", "5", NULL);
		_exit(1);
	}
	must(connect_to(fd, port));
	knock(fd, 1);
	(void)!write(go[1], "g", 1);
	usleep(50000);
	send(fd, "hello", 5, 0);
	expect_end_of(child);
	rounds_in_poll(fd, fd);
}

/* A program that was started before connect() and reads later. */
static void program_has_it_since_before_connect(void)
{
	int port = start_server(knock), fd = socket(AF_INET, SOCK_STREAM, 0), go[2], begun[2];
	must(pipe(go));
	must(pipe(begun));
	pid_t child = fork();
	if (child == 0) {
		char script[80];
		snprintf(script, sizeof(script), "echo >&%d; read -u %d; exec head -c 5 <&%d", begun[1],
			 go[0], fd);
		execl("/bin/bash", "bash", "-c", script, NULL);
		_exit(1);
	}
	char c;
	(void)!read(begun[0], &c, 1);
	must(connect_to(fd, port));
	knock(fd, 1);
	send(fd, "hello", 5, 0);
	(void)!write(go[1], "\n", 1);
	expect_end_of(child);
	rounds_in_poll(fd, fd);
}

/* Nobody shares it by then. */
static void forked_child_has_gone(void)
{
	int port = start_server(warm), fd = socket(AF_INET, SOCK_STREAM, 0);
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	expect_end_of(child);
	must(connect_to(fd, port));
	warm(fd, 1);
	rounds_in_poll(fd, fd);
}

static void child_connects(void)
{
	int port = start_server(warm), fd = socket(AF_INET, SOCK_STREAM, 0), go[2];
	must(pipe(go));
	pid_t child = fork();
	if (child == 0) {
		await_byte(go[0]);
		must(connect_to(fd, port));
		warm(fd, 1);
		rounds_in_poll(fd, fd);
		_exit(0);
	}
	close(fd);
	(void)!write(go[1], "g", 1);
	expect_end_of(child);
}

static void child_connects_for_parent(void)
{
	int port = start_server(knock), fd = socket(AF_INET, SOCK_STREAM, 0);
	pid_t child = fork();
	if (child == 0) {
		must(connect_to(fd, port));
		knock(fd, 1);
		rounds_in_poll(fd, fd);
		_exit(0);
	}
	expect_end_of(child);
	rounds_in_poll(fd, fd);
}

/* The one who gets it connects it; the one who gave it uses it too. */
static void passed_before_connect(void)
{
	int port = start_server(knock), way[2];
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, way));
	pid_t child = fork();
	if (child == 0) {
		int fd = take_passed(way[1]);
		must(connect_to(fd, port));
		knock(fd, 1);
		rounds_in_poll(fd, fd);
		_exit(0);
	}
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	pass(way[0], fd);
	expect_end_of(child);
	rounds_in_poll(fd, fd);
}

/* --- connected again --- */

static void connect_again(void)
{
	int port = start_server(warm), nowhere, fd = socket(AF_INET, SOCK_STREAM, 0);
	close(listen_somewhere(&nowhere));
	int r = connect_to(fd, nowhere);
	say("refused: %d %s\n", r, strerror(errno));
	must(connect_to(fd, port));
	r = connect_to(fd, port);
	say("again: %d %s\n", r, strerror(errno));
	warm(fd, 1);
	rounds_in_poll(fd, fd);
	r = connect_to(fd, port);
	say("again: %d %s\n", r, strerror(errno));
	rounds_in_poll(fd, fd);
}

static void dissolve(int fd)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	say("dissolved: %d\n", connect(fd, &none, sizeof(none)));
}

/* A second connection by the same socket shows nothing of the first. */
static void dissolve_and_connect(void)
{
	int first = start_server(warm), fd = socket(AF_INET, SOCK_STREAM, 0), set = epoll_create1(0);
	enter(set, EPOLL_CTL_ADD, fd, EPOLLIN);
	dissolve(fd);
	must(connect_to(fd, first));
	warm(fd, 1);
	rounds_in_set(set, fd, fd);
	dissolve(fd);
	say("in the set %x\n", wait_in(set));
	stop_server();
	int second = start_server(knock);
	must(connect_to(fd, second));
	knock(fd, 1);
	rounds_in_set(set, fd, fd);
	rounds_in_poll(fd, fd);
	shutdown(fd, SHUT_WR);
	char c;
	say("at the end %x, ", wait_in(set));
	say("%zd\n", recv(fd, &c, 1, 0));
}

/* The same with a peer that died with bytes unread. */
static void dissolve_unread_and_connect(void)
{
	int first = start_server(warm), fd = socket(AF_INET, SOCK_STREAM, 0);
	must(connect_to(fd, first));
	warm(fd, 1);
	kill(server, SIGSTOP);
	send(fd, "never read", 10, 0);
	stop_server();
	say("%x\n", wait_for(fd, POLLIN) & POLLIN);
	dissolve(fd);
	int second = start_server(knock);
	must(connect_to(fd, second));
	knock(fd, 1);
	rounds_in_poll(fd, fd);
	shutdown(fd, SHUT_WR);
	char c;
	ssize_t n = recv(fd, &c, 1, 0);
	say("at the end %zd\n", n);
}

/* --- listeners --- */

static void be_both(int listener, int port)
{
	for (int i = 0; i < 3; i++) {
		pid_t child = fork();
		if (child == 0) {
			int fd = socket(AF_INET, SOCK_STREAM, 0);
			must(connect_to(fd, port));
			warm(fd, 1);
			rounds_in_poll(fd, fd);
			_exit(0);
		}
		say("listener %x\n", wait_for(listener, POLLIN | POLLOUT));
		int fd = accept(listener, NULL, NULL);
		no_delay(fd);
		warm(fd, 0);
		echo(fd);
		expect_end_of(child);
	}
}

/* An entry in a set, a copy and a fork since before listen(). */
static void listener_with_a_past(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), copy = dup(fd), set = epoll_create1(0);
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(at);
	enter(set, EPOLL_CTL_ADD, fd, EPOLLIN);
	must(bind(fd, (struct sockaddr *)&at, length));
	must(listen(fd, 8));
	must(getsockname(fd, (struct sockaddr *)&at, &length));
	be_both(copy, ntohs(at.sin_port));
	int caller = socket(AF_INET, SOCK_STREAM, 0);
	must(connect_to(caller, ntohs(at.sin_port)));
	say("in the set %x\n", wait_in(set));
	close(accept(fd, NULL, NULL));
	close(caller);
	close(fd);
	be_both(copy, ntohs(at.sin_port));
}

/* A client's socket that becomes a listener. */
static void dissolve_and_listen(void)
{
	int port = start_server(warm), fd = socket(AF_INET, SOCK_STREAM, 0);
	must(connect_to(fd, port));
	warm(fd, 1);
	stop_server();
	dissolve(fd);
	must(listen(fd, 8));
	struct sockaddr_in at;
	socklen_t length = sizeof(at);
	must(getsockname(fd, (struct sockaddr *)&at, &length));
	be_both(fd, ntohs(at.sin_port));
}

/* --- nobody has connected it --- */

/* One call after the other, each with what it says. */
static void never_connected(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), set = epoll_create1(0), error = -1, queued = -1;
	struct sockaddr_in peer;
	socklen_t length = sizeof(error), room = sizeof(peer);
	char c = 'x';
	struct iovec iov = {&c, 1};
	struct mmsghdr several = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
	signal(SIGPIPE, SIG_IGN);
#define SAY(call)                                                        \
	do {                                                             \
		errno = 0;                                               \
		long r_ = (long)(call);                                  \
		say("%s: %ld %s\n", #call, r_, r_ == -1 ? strerror(errno) : ""); \
	} while (0)
	SAY(recv(fd, &c, 1, 0));
	SAY(recv(fd, &c, 1, MSG_DONTWAIT));
	SAY(read(fd, &c, 1));
	SAY(send(fd, &c, 1, 0));
	SAY(write(fd, &c, 1));
	SAY(recvmmsg(fd, &several, 1, 0, NULL));
	SAY(sendmmsg(fd, &several, 1, 0));
	SAY(shutdown(fd, SHUT_RDWR));
	SAY(getpeername(fd, (struct sockaddr *)&peer, &room));
	SAY(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
	SAY(ioctl(fd, FIONREAD, &queued));
	say("%d %d %x\n", error, queued, wait_for(fd, POLLIN | POLLOUT));
	enter(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT);
	say("%x\n", wait_in(set));
	enter(set, EPOLL_CTL_ADD, fd, EPOLLIN);
	enter(set, EPOLL_CTL_MOD, fd, EPOLLIN);
	say("%x\n", wait_in(set));
	dissolve(fd);
	SAY(close(fd));
	SAY(recv(fd, &c, 1, 0));
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"epoll_before_connect", epoll_before_connect},
		{"edges_before_connect", edges_before_connect},
		{"room_since_connect", room_since_connect},
		{"two_sets_before_connect", two_sets_before_connect},
		{"dup_in_set_before_connect", dup_in_set_before_connect},
		{"closed_in_set_before_connect", closed_in_set_before_connect},
		{"deleted_before_connect", deleted_before_connect},
		{"oneshot_before_connect", oneshot_before_connect},
		{"nested_before_connect", nested_before_connect},
		{"added_while_connecting", added_while_connecting},
		{"added_while_pairing", added_while_pairing},
		{"dup_before_connect", dup_before_connect},
		{"stdin_before_connect", stdin_before_connect},
		{"fork_before_connect", fork_before_connect},
		{"program_gets_it_before_connect", program_gets_it_before_connect},
		{"program_has_it_since_before_connect", program_has_it_since_before_connect},
		{"forked_child_has_gone", forked_child_has_gone},
		{"child_connects", child_connects},
		{"child_connects_for_parent", child_connects_for_parent},
		{"passed_before_connect", passed_before_connect},
		{"connect_again", connect_again},
		{"dissolve_and_connect", dissolve_and_connect},
		{"dissolve_unread_and_connect", dissolve_unread_and_connect},
		{"listener_with_a_past", listener_with_a_past},
		{"dissolve_and_listen", dissolve_and_listen},
		{"never_connected", never_connected},
		{NULL, NULL},
	};
	int r = act_out(scenarios, argc, argv);
	if (server)
		stop_server();
	return r;
}
