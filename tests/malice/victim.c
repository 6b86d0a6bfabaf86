/* victim.c - a server that treats each connection as it is told on standard input, so that a test
 * can do harm to one of them and see what becomes of the others and of the process.
 *
 *   victim             prints its port, then takes orders, one a line:
 *     serve ROUND MODE SEED   accepts the next connection and treats it so; prints
 *                             "over ROUND ..." when it has ended
 *     close ROUND             what a connection of mode "closed" with seed 0 waits for
 *     interrupt ROUND         a signal, whose handler does not restart calls, for its threads
 *     state                   prints descriptors and threads of the process
 *   victim talk PORT   sends, gets echoed, and compares until standard input ends; prints how much
 *
 * What is received lies in memory of its exact size, for AddressSanitizer to look after.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 1 << 20, THREADS = 2, MOST = 70000 };

struct served {
	int fd, round;
	unsigned seed;
	pthread_t threads[THREADS];
	int running; /* how many of them */
	_Atomic int interrupted, to_be_closed;
	const char *mode;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct served *rounds[ROUNDS];

static void on_signal(int number)
{
	(void)number;
}

static size_t some(unsigned *seed, size_t most)
{
	/* Small and large ones alike. */
	size_t n = (size_t)rand_r(seed) % (rand_r(seed) % 3 ? 64 : most);
	return n + 1;
}

/* Has the connection ended, for the one call that said r? */
static int over(const struct served *served, ssize_t r)
{
	if (r > 0)
		return 0;
	if (r == 0)
		return 1;
	if (errno == EINTR)
		return served->interrupted;
	return errno != EAGAIN;
}

static ssize_t receive(struct served *served, unsigned *seed, int flags)
{
	size_t n = some(seed, MOST);
	char *bytes = malloc(n);
	struct iovec iov[2] = {{bytes, n / 2}, {bytes + n / 2, n - n / 2}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t r = rand_r(seed) % 2 ? recv(served->fd, bytes, n, flags) :
				       recvmsg(served->fd, &msg, flags);
	int saved = errno;
	if (r > (ssize_t)n)
		abort();
	free(bytes);
	errno = saved;
	return r;
}

static ssize_t transmit(struct served *served, unsigned *seed, int flags)
{
	size_t n = some(seed, MOST);
	char *bytes = malloc(n);
	memset(bytes, 's', n);
	struct iovec iov[2] = {{bytes, n / 3}, {bytes + n / 3, n - n / 3}};
	ssize_t r = rand_r(seed) % 2 ? send(served->fd, bytes, n, flags | MSG_NOSIGNAL) :
				       writev(served->fd, iov, 2);
	int saved = errno;
	if (r > (ssize_t)n)
		abort();
	free(bytes);
	errno = saved;
	return r;
}

static void only_receive(struct served *served, unsigned seed)
{
	while (!over(served, receive(served, &seed, 0)))
		;
}

static void only_send(struct served *served, unsigned seed)
{
	while (!over(served, transmit(served, &seed, 0)))
		;
}

static void take_turns(struct served *served, unsigned seed)
{
	while (!over(served, receive(served, &seed, 0)) && !over(served, transmit(served, &seed, 0)))
		;
}

static void receive_with_flags(struct served *served, unsigned seed)
{
	static const int flags[] = {0, MSG_WAITALL, MSG_PEEK, MSG_TRUNC, MSG_PEEK | MSG_WAITALL,
				    MSG_DONTWAIT};
	(void)receive(served, &seed, 0);
	for (;;) {
		int which = flags[(unsigned)rand_r(&seed) % 6];
		ssize_t r = receive(served, &seed, which);
		/* What may be looked at only has to be taken away, too. */
		if (over(served, r) || over(served, receive(served, &seed, 0)))
			break;
	}
}

/* Non-blocking; `ready` says what can be done, and is not believed. */
static int do_what_can_be(struct served *served, unsigned *seed, int can_read, int can_write)
{
	if (can_read && over(served, receive(served, seed, MSG_DONTWAIT)))
		return 0;
	return !can_write || !over(served, transmit(served, seed, MSG_DONTWAIT));
}

static void poll_and_do(struct served *served, unsigned seed)
{
	fcntl(served->fd, F_SETFL, O_NONBLOCK);
	for (;;) {
		struct pollfd p = {.fd = served->fd,
				   .events = (short)(POLLIN | (rand_r(&seed) % 3 ? 0 : POLLOUT))};
		if (poll(&p, 1, -1) == -1 && served->interrupted)
			break;
		if (!do_what_can_be(served, &seed, p.revents & ~POLLOUT, p.revents & POLLOUT))
			break;
	}
}

static void select_and_ask(struct served *served, unsigned seed)
{
	fcntl(served->fd, F_SETFL, O_NONBLOCK);
	for (;;) {
		fd_set in, out;
		int number = 0, size = 1 << (10 + rand_r(&seed) % 10);
		struct tcp_info info;
		socklen_t length = sizeof(info);
		FD_ZERO(&in);
		FD_ZERO(&out);
		FD_SET(served->fd, &in);
		if (rand_r(&seed) % 4 == 0)
			FD_SET(served->fd, &out);
		if (select(served->fd + 1, &in, &out, NULL, NULL) == -1) {
			if (served->interrupted)
				break;
			continue;
		}
		ioctl(served->fd, FIONREAD, &number);
		ioctl(served->fd, SIOCOUTQ, &number);
		getsockopt(served->fd, IPPROTO_TCP, TCP_INFO, &info, &length);
		setsockopt(served->fd, SOL_SOCKET, rand_r(&seed) % 2 ? SO_RCVBUF : SO_SNDBUF, &size,
			   sizeof(size));
		if (!do_what_can_be(served, &seed, FD_ISSET(served->fd, &in),
				    FD_ISSET(served->fd, &out)))
			break;
	}
}

static void epoll_and_do(struct served *served, unsigned seed)
{
	int ep = epoll_create1(0);
	unsigned edge = rand_r(&seed) % 2 ? EPOLLET : 0;
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | edge};
	if (!edge)
		event.events &= ~(unsigned)EPOLLOUT;
	fcntl(served->fd, F_SETFL, O_NONBLOCK);
	epoll_ctl(ep, EPOLL_CTL_ADD, served->fd, &event);
	for (;;) {
		int n = epoll_wait(ep, &event, 1, -1);
		if (n == -1 && served->interrupted)
			break;
		if (n <= 0)
			continue;
		ssize_t r;
		/* An edge is told once: all that is there has to be taken. */
		do
			r = receive(served, &seed, 0);
		while (r > 0 && edge);
		if (over(served, r))
			break;
		if ((event.events & EPOLLOUT) && over(served, transmit(served, &seed, 0)))
			break;
	}
	close(ep);
}

static void splice_both_ways(struct served *served, unsigned seed)
{
	int ends[2], file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	char drained[4096];
	if (pipe2(ends, O_CLOEXEC) == -1)
		abort();
	for (;;) {
		ssize_t n = splice(served->fd, NULL, ends[1], NULL, some(&seed, sizeof(drained)), 0);
		if (over(served, n))
			break;
		if (n > 0 && read(ends[0], drained, (size_t)n) != n)
			abort();
		off_t from = 0;
		if (over(served, sendfile(served->fd, file, &from, some(&seed, 8192))))
			break;
	}
	close(ends[0]), close(ends[1]), close(file);
}

static void *send_beside(void *arg)
{
	struct served *served = arg;
	only_send(served, served->seed + 1);
	return NULL;
}

static void beside(struct served *served, void *(*other)(void *),
		   void (*here)(struct served *, unsigned), unsigned seed)
{
	pthread_mutex_lock(&lock);
	pthread_create(&served->threads[1], NULL, other, served);
	served->running = 2;
	pthread_mutex_unlock(&lock);
	here(served, seed);
	pthread_join(served->threads[1], NULL);
	pthread_mutex_lock(&lock);
	served->running = 1;
	pthread_mutex_unlock(&lock);
}

static void two_threads(struct served *served, unsigned seed)
{
	beside(served, send_beside, only_receive, seed);
}

static void *close_later(void *arg)
{
	struct served *served = arg;
	usleep(served->seed % 20000);
	while (served->seed == 0 && !served->to_be_closed)
		usleep(1000);
	close(served->fd);
	served->fd = -1;
	return NULL;
}

static void receive_until_closed(struct served *served, unsigned seed)
{
	(void)transmit(served, &seed, 0); /* closed before it is fused, it would never be */
	beside(served, close_later, only_receive, seed);
}

static void two_processes(struct served *served, unsigned seed)
{
	/* Shared before it is fused, it would never be. */
	(void)transmit(served, &seed, 0);
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		only_receive(served, seed + 1);
		_exit(0);
	}
	only_receive(served, seed);
	kill(child, SIGKILL); /* it was not the one that was interrupted */
	waitpid(child, NULL, 0);
}

static void shut_down(struct served *served, unsigned seed)
{
	for (int i = 0; i < 5 && !over(served, transmit(served, &seed, 0)); i++)
		;
	shutdown(served->fd, rand_r(&seed) % 3 ? SHUT_WR : SHUT_RDWR);
	only_receive(served, seed);
}

/* Looks at more than there is, until it is interrupted. */
static void peek_at_all(struct served *served, unsigned seed)
{
	(void)receive(served, &seed, 0); /* what TCP has */
	(void)transmit(served, &seed, 0);
	char bytes[1000];
	while (!over(served, recv(served->fd, bytes, sizeof(bytes), MSG_PEEK | MSG_WAITALL)) &&
	       !served->interrupted)
		;
}

static void leave_the_ring(struct served *served, unsigned seed)
{
	for (int i = 0; i < 3 && !over(served, transmit(served, &seed, 0)); i++)
		;
	if (seed % 2) {
		send(served->fd, "u", 1, MSG_OOB | MSG_NOSIGNAL);
	} else {
		/* A number that programs without the library inherit. */
		int copy = dup2(served->fd, 0);
		if (copy != 0)
			abort();
	}
	only_receive(served, seed);
	if (seed % 2 == 0) {
		int null = open("/dev/null", O_RDONLY);
		dup2(null, 0);
		close(null);
	}
}

static void echo(struct served *served, unsigned seed)
{
	(void)seed;
	char bytes[16384];
	ssize_t n;
	while ((n = recv(served->fd, bytes, sizeof(bytes), 0)) > 0)
		for (ssize_t sent = 0, r; sent < n; sent += r)
			if ((r = send(served->fd, bytes + sent, (size_t)(n - sent), MSG_NOSIGNAL)) <= 0)
				return;
}

static const struct {
	const char *name;
	void (*treat)(struct served *, unsigned);
} modes[] = {
	{"echo", echo},
	{"receive", only_receive},
	{"send", only_send},
	{"turns", take_turns},
	{"flags", receive_with_flags},
	{"poll", poll_and_do},
	{"select", select_and_ask},
	{"epoll", epoll_and_do},
	{"splice", splice_both_ways},
	{"threads", two_threads},
	{"closed", receive_until_closed},
	{"processes", two_processes},
	{"shutdown", shut_down},
	{"peek", peek_at_all},
	{"leave", leave_the_ring},
};

static void *serve(void *arg)
{
	struct served *served = arg;
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
		if (strcmp(modes[i].name, served->mode) == 0)
			modes[i].treat(served, served->seed);
	if (served->fd >= 0)
		close(served->fd);
	pthread_mutex_lock(&lock);
	served->running = 0;
	rounds[served->round] = NULL;
	pthread_mutex_unlock(&lock);
	printf("over %d %s\n", served->round, served->mode);
	free((char *)served->mode);
	free(served);
	return NULL;
}

static int entries(const char *path)
{
	int n = 0;
	DIR *dir = opendir(path);
	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static void interrupt(int round)
{
	pthread_mutex_lock(&lock);
	struct served *served = rounds[round];
	if (served) {
		served->interrupted = 1;
		for (int i = 0; i < served->running; i++)
			pthread_kill(served->threads[i], SIGUSR1);
	}
	pthread_mutex_unlock(&lock);
}

static void let_close(int round)
{
	pthread_mutex_lock(&lock);
	if (rounds[round])
		rounds[round]->to_be_closed = 1;
	pthread_mutex_unlock(&lock);
}

static void accept_and_serve(int listener, int round, const char *mode, unsigned seed)
{
	struct served *served = calloc(1, sizeof(*served));
	served->fd = accept(listener, NULL, NULL);
	served->round = round;
	served->seed = seed;
	served->mode = strdup(mode);
	served->running = 1;
	pthread_mutex_lock(&lock);
	rounds[round] = served;
	pthread_create(&served->threads[0], NULL, serve, served);
	pthread_detach(served->threads[0]);
	pthread_mutex_unlock(&lock);
}

static int take_orders(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char line[256], mode[32];
	int round;
	unsigned seed;
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	bind(listener, (struct sockaddr *)&address, length);
	listen(listener, 64);
	getsockname(listener, (struct sockaddr *)&address, &length);
	printf("%d\n", ntohs(address.sin_port));
	/* Standard input's number is played with in some rounds. */
	FILE *orders = fdopen(fcntl(0, F_DUPFD_CLOEXEC, 10), "r");
	while (fgets(line, sizeof(line), orders)) {
		if (sscanf(line, "serve %d %31s %u", &round, mode, &seed) == 3)
			accept_and_serve(listener, round, mode, seed);
		else if (sscanf(line, "interrupt %d", &round) == 1)
			interrupt(round);
		else if (sscanf(line, "close %d", &round) == 1)
			let_close(round);
		else if (strcmp(line, "state\n") == 0)
			printf("state %d %d\n", entries("/proc/self/fd"), entries("/proc/self/task"));
	}
	return 0;
}

static int talk(int port)
{
	enum { LONGEST = 40000 };
	static unsigned char out[LONGEST], in[LONGEST];
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons((uint16_t)port),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	unsigned seed = (unsigned)getpid();
	uint64_t bytes = 0;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == -1)
		return 1;
	puts("connected");
	fflush(stdout);
	struct pollfd stop = {.fd = 0, .events = POLLIN};
	/* A nap after each message: the processor is for those that do harm. */
	while (poll(&stop, 1, 2) == 0) {
		size_t n = some(&seed, LONGEST);
		for (size_t i = 0; i < n; i++)
			out[i] = (unsigned char)(bytes + i * 7);
		for (size_t sent = 0; sent < n;) {
			ssize_t r = send(fd, out + sent, n - sent, MSG_NOSIGNAL);
			if (r <= 0)
				return perror("send"), 1;
			sent += (size_t)r;
		}
		for (size_t got = 0; got < n;) {
			ssize_t r = recv(fd, in + got, n - got, 0);
			if (r <= 0)
				return perror("recv"), 1;
			got += (size_t)r;
		}
		if (memcmp(in, out, n) != 0)
			return fputs("other bytes came back\n", stderr), 1;
		bytes += n;
	}
	printf("checked %llu\n", (unsigned long long)bytes);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "talk") == 0)
		return talk(atoi(argv[2]));
	return take_orders();
}
