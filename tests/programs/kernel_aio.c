/* kernel_aio.c - a socket that the kernel is asked to read, write or poll past the C library's names:
 * by the AIO calls of Linux, by an io_uring that is set up when the socket has been in use, or by
 * syscall(). */
#include "shared_page.h"

#include <linux/aio_abi.h>

/* Sends while the other end waits in the kernel, then sends back what it is sent. */
static void send_late(int fd)
{
	char words[8] = "";
	usleep(200 * 1000);
	send(fd, "one\n", 4, 0);
	(void)!recv(fd, words, 4, MSG_WAITALL);
	send(fd, words, 4, 0);
	pause();
}

static void send_at_once(int fd)
{
	char byte;
	send(fd, "one\n", 4, 0);
	(void)!recv(fd, &byte, 1, 0);
	pause();
}

static void submit(const char *what, struct iocb *block)
{
	aio_context_t context = 0;
	struct iocb *list[1] = {block};
	struct io_event event = {.res = -1};
	struct timespec limit = {3, 0};
	struct timeval patience = {3, 0}; /* of a read, which blocks */
	setsockopt((int)block->aio_fildes, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (syscall(SYS_io_setup, 8, &context) == -1)
		say("no AIO here: %s\n", strerror(errno));
	long submitted = syscall(SYS_io_submit, context, 1L, list);
	long done = syscall(SYS_io_getevents, context, 1L, 1L, &event, &limit);
	if (block->aio_lio_opcode == IOCB_CMD_POLL)
		event.res &= POLLIN;
	say("%s: %ld, %ld, %lld\n", what, submitted, done, (long long)event.res);
}

static void poll_by_aio(int fd)
{
	char words[8] = "";
	struct iocb in = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = (unsigned)fd, .aio_buf = POLLIN};
	submit("poll", &in);
	ssize_t n = recv(fd, words, 4, MSG_DONTWAIT);
	say("%zd %s", n, words);
}

static void read_by_aio(int fd)
{
	static char words[8];
	struct iocb in = {.aio_lio_opcode = IOCB_CMD_PREAD,
			  .aio_fildes = (unsigned)fd,
			  .aio_buf = (uintptr_t)words,
			  .aio_nbytes = 4};
	await_queued(fd, 4);
	submit("read", &in);
	say("%s", words);
}

static void write_by_aio(int fd)
{
	static char mine[] = "back", words[8];
	struct iocb out = {.aio_lio_opcode = IOCB_CMD_PWRITE,
			   .aio_fildes = (unsigned)fd,
			   .aio_buf = (uintptr_t)mine,
			   .aio_nbytes = 4};
	submit("write", &out);
	ssize_t n = recv(fd, words, 8, MSG_WAITALL);
	say("%zd %.8s\n", n, words);
}

/* The kernel reads it as such a ring would. */
static void set_up_a_ring_late(int fd)
{
	char words[8] = "", params[120] = "";
	struct timeval patience = {3, 0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	await_queued(fd, 4);
	if (syscall(SYS_io_uring_setup, 4, params) == -1) {
		say("no io_uring here: %s\n", strerror(errno));
		return;
	}
	long n = syscall(SYS_read, fd, words, 4);
	say("%ld %s", n, words);
}

static void send_and_send_back(int fd)
{
	char words[8] = "";
	send(fd, "one\n", 4, 0);
	(void)!recv(fd, words, 4, MSG_WAITALL);
	send(fd, words, 4, 0);
	pause();
}

static void read_and_write_by_number(int fd)
{
	char words[8] = "";
	await_queued(fd, 4);
	long n = syscall(SYS_read, fd, words, 4);
	say("%ld %s", n, words);
	send(fd, "ba", 2, 0);
	n = syscall(SYS_sendto, fd, "ck", 2, 0, NULL, 0);
	say("%ld ", n);
	n = recv(fd, words, 4, MSG_WAITALL);
	say("%ld %.4s\n", n, words);
}

static void by_number(void)
{
	act(send_and_send_back, read_and_write_by_number);
}

static void poll_it(void)
{
	act(send_late, poll_by_aio);
}

static void read_it(void)
{
	act(send_at_once, read_by_aio);
}

static void write_it(void)
{
	act(send_late, write_by_aio);
}

static void ring(void)
{
	act(send_at_once, set_up_a_ring_late);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"poll", poll_it}, {"read", read_it}, {"write", write_it}, {"ring", ring},
		{"number", by_number}, {NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
