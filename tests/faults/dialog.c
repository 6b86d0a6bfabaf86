/* dialog.c - one of two ends that do all that a program may with a connection, step by step, and
 * say what came of it. Knows nothing of faults: what it says plain is what it has to say whatever
 * happens to the calls that the library makes.
 *
 *   dialog SCENARIO server PORT
 *   dialog SCENARIO client PORT
 *
 * As any careful program does, it takes EINTR for nothing. Standard output is what is compared.
 * Standard error says "fused" once a segment was seen.
 */
#include "../programs/two_ends.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

enum { BIGGEST = 6 << 20, PATIENCE_MS = 25000, WARM_MS = 400 };

static bool is_client;
static char *self, *port_text;
static uint64_t sent, got; /* positions in the two streams of the present connection */
static uint8_t *buffer;

static uint8_t byte_at(bool by_client, uint64_t position)
{
	uint64_t x = (position >> 3) * 0x9e3779b97f4a7c15u ^ (by_client ? 0x55 : 0xaa);
	return (uint8_t)(x >> (position & 7) * 8 ^ x >> 29);
}

static void fill(size_t n)
{
	for (size_t i = 0; i < n; i++)
		buffer[i] = byte_at(is_client, sent + i);
}

static bool right(size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (buffer[i] != byte_at(!is_client, got + i))
			return false;
	return true;
}

static void failed(const char *what)
{
	say("%s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- one piece of a stream, in the ways there are --- */

enum way { BLOCKING, POLLED, SELECTED, LEVEL, EDGE };
static int set = -1;

/* As EINTR, a kernel that has no memory for an entry is put up with for a while. */
static void control(int in, int op, int fd, struct epoll_event *event)
{
	for (int tries = 0; epoll_ctl(in, op, fd, event) == -1; tries++) {
		if ((errno != ENOMEM && errno != ENOSPC) || tries == 100)
			failed("epoll_ctl");
		usleep(1000);
	}
}

static void await(int fd, enum way way, bool writing)
{
	int r;
	struct pollfd p = {.fd = fd, .events = writing ? POLLOUT : POLLIN};
	struct epoll_event event;
	fd_set fds;
	struct timeval patience = {PATIENCE_MS / 1000, 0};
	FD_ZERO(&fds);
	FD_SET(fd, &fds);
	if (way == POLLED)
		r = poll(&p, 1, PATIENCE_MS);
	else if (way == SELECTED)
		r = writing ? select(fd + 1, NULL, &fds, NULL, &patience) :
			      select(fd + 1, &fds, NULL, NULL, &patience);
	else
		r = epoll_wait(set, &event, 1, PATIENCE_MS);
	if (r == 0)
		say("nothing happened in %d ms\n", PATIENCE_MS);
	if (r == 0 || (r == -1 && errno != EINTR))
		failed("waiting");
}

static void enter(int fd, enum way way, bool writing)
{
	struct epoll_event event = {.events = (writing ? EPOLLOUT : EPOLLIN) |
					      (way == EDGE ? (uint32_t)EPOLLET : 0)};
	if (way != LEVEL && way != EDGE)
		return;
	set = epoll_create1(EPOLL_CLOEXEC);
	control(set, EPOLL_CTL_ADD, fd, &event);
}

static void leave(void)
{
	if (set != -1)
		close(set);
	set = -1;
}

static void send_all(int fd, size_t n, enum way way)
{
	fill(n);
	enter(fd, way, true);
	for (size_t done = 0; done < n;) {
		ssize_t r = send(fd, buffer + done, n - done, MSG_NOSIGNAL | (way ? MSG_DONTWAIT : 0));
		if (r > 0)
			done += (size_t)r;
		else if (r == -1 && errno == EAGAIN && way)
			await(fd, way, true);
		else if (errno != EINTR)
			failed("send");
	}
	sent += n;
	leave();
}

static void recv_all(int fd, size_t n, enum way way)
{
	enter(fd, way, false);
	for (size_t done = 0; done < n;) {
		ssize_t r = recv(fd, buffer + done, n - done, way ? MSG_DONTWAIT : 0);
		if (r > 0)
			done += (size_t)r;
		else if (r == 0)
			say("end of stream after %zu of %zu\n", done, n), exit(1);
		else if (errno == EAGAIN && way)
			await(fd, way, false);
		else if (errno != EINTR)
			failed("recv");
	}
	if (!right(n))
		say("wrong bytes at %llu\n", (unsigned long long)got), exit(1);
	got += n;
	leave();
}

/* Both ways, the client first. */
static void exchange(int fd, size_t n, enum way way)
{
	for (int turn = 0; turn < 2; turn++)
		if (is_client == (turn == 0))
			send_all(fd, n, way);
		else
			recv_all(fd, n, way);
}

/* --- connections --- */

static int listener = -1;

static int one_connection(void)
{
	int fd;
	sent = got = 0;
	if (is_client) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect_to(fd, atoi(port_text)) == -1)
			failed("connect");
	} else {
		fd = accept(listener, NULL, NULL);
		if (fd == -1)
			failed("accept");
		no_delay(fd);
	}
	return fd;
}

/* Bytes back and forth for as long as it may take to be fused, but not for ever. The client ends
 * it, with a byte that is not part of the stream. */
static void warm_up_for(int fd, int most_ms)
{
	int64_t end = now_ms() + (getenv("LD_PRELOAD") ? most_ms : 0);
	char byte = 'w';
	for (int rest = 20; rest; rest -= byte == 'm') {
		if (is_client) {
			byte = has_a_segment() || now_ms() >= end ? 'm' : 'w';
			while (send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
				if (errno != EINTR)
					failed("warm send");
			while (recv(fd, &byte, 1, 0) != 1)
				if (errno != EINTR)
					failed("warm receive");
		} else {
			while (recv(fd, &byte, 1, 0) != 1)
				if (errno != EINTR)
					failed("warm receive");
			while (send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
				if (errno != EINTR)
					failed("warm send");
		}
	}
	if (has_a_segment())
		fprintf(stderr, "fused\n");
}

static void warm_up(int fd)
{
	warm_up_for(fd, WARM_MS);
}

static int warm_connection(void)
{
	int fd = one_connection();
	warm_up(fd);
	return fd;
}

/* What a receive finds at the end. */
static void end_of_stream(int fd)
{
	ssize_t r;
	do
		r = recv(fd, buffer, 1, 0);
	while (r == -1 && errno == EINTR);
	say("at the end: %s\n", r == 0 ? "end of stream" : r > 0 ? "a byte" : strerror(errno));
}

static void close_both(int fd)
{
	if (is_client) {
		if (shutdown(fd, SHUT_WR) == -1)
			failed("shutdown");
		end_of_stream(fd);
	} else {
		end_of_stream(fd);
	}
	if (close(fd) == -1)
		say("close: %s\n", strerror(errno));
}

/* --- the scenarios --- */

static void nothing(int signal)
{
	(void)signal;
}

static void blocking(void)
{
	static const size_t sizes[] = {1, 700, 20000, 300000, BIGGEST};
	int fd = warm_connection();
	/* A handler that would end calls: waiting has to tell such signals from others. */
	struct sigaction ending = {.sa_handler = nothing}, other = {.sa_handler = nothing,
								     .sa_flags = SA_RESTART};
	sigaction(SIGUSR1, &ending, NULL);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		exchange(fd, sizes[i], BLOCKING);
		if (i == 2)
			sigaction(SIGUSR2, &other, NULL);
	}
	close_both(fd);
}

static void polled(void)
{
	int fd = warm_connection();
	fcntl(fd, F_SETFL, O_NONBLOCK);
	exchange(fd, 700, POLLED);
	exchange(fd, BIGGEST, POLLED);
	exchange(fd, 20000, SELECTED);
	exchange(fd, BIGGEST, SELECTED);
	fcntl(fd, F_SETFL, 0);
	close_both(fd);
}

static void epolled(void)
{
	int fd = warm_connection();
	exchange(fd, 700, LEVEL);
	exchange(fd, BIGGEST, LEVEL);
	exchange(fd, 20000, EDGE);
	exchange(fd, BIGGEST, EDGE);
	close_both(fd);
}

/* The socket is in a set before it is fused, and stays there. */
static void in_a_set(void)
{
	int fd = one_connection(), set_before = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = 7};
	control(set_before, EPOLL_CTL_ADD, fd, &event);
	warm_up(fd);
	for (int i = 0; i < 20; i++) {
		if (is_client != (i % 2 == 0)) {
			int r;
			while ((r = epoll_wait(set_before, &event, 1, PATIENCE_MS)) == -1 && errno == EINTR)
				;
			if (r != 1 || event.data.u32 != 7)
				say("epoll_wait: %d, data %u\n", r, event.data.u32);
			recv_all(fd, 300, BLOCKING);
		} else {
			usleep(i < 6 ? 3000 : 0); /* lets the other end sleep */
			send_all(fd, 300, BLOCKING);
		}
	}
	event.events = EPOLLIN | EPOLLOUT;
	control(set_before, EPOLL_CTL_MOD, fd, &event);
	exchange(fd, 20000, BLOCKING);
	control(set_before, EPOLL_CTL_DEL, fd, NULL);
	close_both(fd);
	close(set_before);
}

/* A child has the connection for a while, then the parent again. */
static void forked(void)
{
	int fd = warm_connection(), status = 0;
	exchange(fd, 700, BLOCKING);
	pid_t child = fork();
	if (child == 0) {
		exchange(fd, 20000, BLOCKING);
		exchange(fd, 300000, POLLED);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || status)
		say("the child ended with %d\n", status);
	sent += 320000;
	got += 320000;
	exchange(fd, 20000, BLOCKING);
	close_both(fd);
}

/* The server's bytes, unread, are wanted by TCP while a child of its has the connection, which may be
 * killed meanwhile; then the parent goes on. */
static void taken_back_by_a_child(void)
{
	int fd = warm_connection();
	exchange(fd, 700, BLOCKING);
	if (is_client) {
		char byte;
		while (recv(fd, &byte, 1, MSG_PEEK) == -1 && errno == EINTR)
			;
		usleep(20000); /* all has been sent */
		/* Standard input is read past the library, so the bytes are wanted by TCP. */
		if (dup2(fd, STDIN_FILENO) == -1 || close(STDIN_FILENO) == -1)
			failed("dup2");
		send_all(fd, 1, BLOCKING);
		recv_all(fd, 30000, BLOCKING);
	} else {
		send_all(fd, 30000, BLOCKING);
		pid_t child = fork();
		if (child == 0) {
			await(fd, POLLED, false);
			_exit(0);
		}
		waitpid(child, NULL, 0);
		recv_all(fd, 1, BLOCKING);
	}
	exchange(fd, 20000, BLOCKING);
	close_both(fd);
}

/* What is sent lies in a file. */
static void from_a_file(void)
{
	int fd = warm_connection(), file = memfd_create("payload", MFD_CLOEXEC);
	for (int turn = 0; turn < 2; turn++) {
		off_t at = 0;
		if (is_client != (turn == 0)) {
			recv_all(fd, 300000, BLOCKING);
			continue;
		}
		fill(300000);
		if (pwrite(file, buffer, 300000, 0) != 300000)
			failed("pwrite");
		while (at < 300000)
			if (sendfile(fd, file, &at, (size_t)(300000 - at)) == -1 && errno != EINTR)
				failed("sendfile");
		sent += 300000;
	}
	exchange(fd, 20000, BLOCKING);
	close_both(fd);
	close(file);
}

/* The server lets another program have it, with bytes unread. */
static void handed_on(void)
{
	int fd = warm_connection(), status = 0;
	char number[16];
	exchange(fd, 700, BLOCKING);
	if (is_client) {
		send_all(fd, 20000, BLOCKING);
		exchange(fd, 20000, BLOCKING);
		close_both(fd);
		return;
	}
	usleep(20000);
	snprintf(number, sizeof(number), "%d", fd);
	pid_t child = fork();
	if (child == 0) {
		execl(self, self, "heir", "server", number, NULL);
		failed("exec");
	}
	close(fd);
	if (waitpid(child, &status, 0) != child || status)
		say("the heir ended with %d\n", status);
}

static void heir(int fd)
{
	sent = got = 700;
	recv_all(fd, 20000, BLOCKING);
	exchange(fd, 20000, BLOCKING);
	close_both(fd);
}

/* Something that only TCP can do, with bytes unread on both sides. */
static void back_to_tcp(void)
{
	int fd = warm_connection();
	exchange(fd, 700, BLOCKING);
	send_all(fd, 30000, BLOCKING);
	usleep(20000); /* both have sent */
	if (!is_client && send(fd, "!", 1, MSG_OOB) != 1)
		failed("urgent data");
	recv_all(fd, 30000, BLOCKING);
	exchange(fd, 20000, BLOCKING);
	close_both(fd);
}

/* A set in another set: sockets in it go back to TCP, and what is unread with them. */
static void nested_set(void)
{
	int fd = warm_connection(), inner = epoll_create1(0), outer = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN};
	exchange(fd, 700, BLOCKING);
	if (is_client) {
		send_all(fd, 30000, BLOCKING);
		send_all(fd, 30000, BLOCKING);
	} else {
		usleep(20000);
		control(inner, EPOLL_CTL_ADD, fd, &event);
		control(outer, EPOLL_CTL_ADD, inner, &event);
		while (got < 700 + 60000) {
			if (epoll_wait(outer, &event, 1, PATIENCE_MS) == 0)
				say("the outer set says nothing\n"), exit(1);
			recv_all(fd, 10000, BLOCKING);
		}
	}
	exchange(fd, 20000, BLOCKING);
	close_both(fd);
	close(inner);
	close(outer);
}

/* Closed by the client with bytes unread: a reset. */
static void reset(void)
{
	int fd = warm_connection();
	exchange(fd, 700, BLOCKING);
	if (is_client) {
		char byte;
		while (recv(fd, &byte, 1, MSG_PEEK) == -1 && errno == EINTR)
			;
		close(fd);
		return;
	}
	send_all(fd, 5000, BLOCKING);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int r;
	while ((r = poll(&p, 1, PATIENCE_MS)) == -1 && errno == EINTR)
		;
	say("after the close: %s\n", r == 1 && (p.revents & POLLERR) ? "an error" : "no error");
	end_of_stream(fd);
	r = (int)send(fd, "x", 1, MSG_NOSIGNAL);
	say("a send: %s\n", r == 1 ? "sent" : strerror(errno));
	close(fd);
}

/* Closed by the server with bytes unread, after the client has shut down. */
static void reset_after_shutdown(void)
{
	int fd = warm_connection();
	exchange(fd, 700, BLOCKING);
	if (is_client) {
		send_all(fd, 5000, BLOCKING);
		if (shutdown(fd, SHUT_WR) == -1)
			failed("shutdown");
		end_of_stream(fd);
	} else {
		struct pollfd p = {.fd = fd, .events = POLLRDHUP};
		while (poll(&p, 1, PATIENCE_MS) == -1 && errno == EINTR)
			;
	}
	close(fd);
}

/* Half closed both ways in turn, with much on its way. */
static void half_closed(void)
{
	int fd = warm_connection();
	if (is_client) {
		send_all(fd, 300000, BLOCKING);
		if (shutdown(fd, SHUT_WR) == -1)
			failed("shutdown");
		recv_all(fd, 300000, BLOCKING);
		end_of_stream(fd);
	} else {
		recv_all(fd, 300000, BLOCKING);
		end_of_stream(fd);
		send_all(fd, 300000, BLOCKING);
	}
	close(fd);
}

/* The broker is replaced while bytes go back and forth, and there is another connection later. */
static void upgraded(void)
{
	int fd = warm_connection();
	const char *go = getenv("DIALOG_GO");
	uint8_t last = 0;
	for (int64_t end = now_ms() + PATIENCE_MS; !last; usleep(1000)) {
		exchange(fd, 3000, BLOCKING);
		last = access(go, F_OK) == 0 || now_ms() >= end;
		/* The client says whether it goes on. */
		if (is_client ? send(fd, &last, 1, 0) != 1 : recv(fd, &last, 1, 0) != 1)
			failed("upgraded");
	}
	exchange(fd, 300000, BLOCKING);
	close_both(fd);
	sleep(2); /* who has lost its broker looks for another one after a second */
	fd = one_connection();
	warm_up_for(fd, 10000);
	exchange(fd, 300000, BLOCKING);
	close_both(fd);
}

/* --- what is left at the end --- */

static int numbers_below(int limit)
{
	int n = 0;
	DIR *folder = opendir("/proc/self/fd");
	for (struct dirent *entry; (entry = readdir(folder));)
		if (atoi(entry->d_name) < limit && entry->d_name[0] != '.')
			n++;
	closedir(folder);
	return n;
}

static void what_is_left(int before)
{
	/* Another thread's or the peer's last look may still hold on to it for a moment. */
	for (int i = 0; i < 200 && has_a_segment(); i++)
		usleep(10000);
	say("left: %d numbers, %s\n", numbers_below(1000) - before,
	    has_a_segment() ? "a segment" : "no segment");
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"blocking", blocking},	  {"polled", polled},	      {"epolled", epolled},
		{"in_a_set", in_a_set},	  {"forked", forked},	      {"handed_on", handed_on},
		{"back_to_tcp", back_to_tcp}, {"nested_set", nested_set}, {"reset", reset},
		{"half_closed", half_closed}, {"upgraded", upgraded},	      {"from_a_file", from_a_file},
		{"taken_back_by_a_child", taken_back_by_a_child},
		{"reset_after_shutdown", reset_after_shutdown},
		{NULL, NULL},
	};
	if (argc < 4)
		return 2;
	self = argv[0];
	is_client = strcmp(argv[2], "client") == 0;
	port_text = argv[3];
	buffer = malloc(BIGGEST);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (strcmp(argv[1], "heir") == 0) {
		heir(atoi(argv[3]));
		return 0;
	}
	int before = numbers_below(1000);
	if (!is_client) {
		struct sockaddr_in address = {.sin_family = AF_INET,
					      .sin_port = htons((uint16_t)atoi(port_text)),
					      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		int on = 1;
		listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (bind(listener, (struct sockaddr *)&address, sizeof(address)) == -1 ||
		    listen(listener, 8) == -1)
			failed("listen");
	}
	int r = act_out(scenarios, argc, argv);
	if (listener != -1)
		close(listener);
	what_is_left(before);
	return r;
}
