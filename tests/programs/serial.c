/* serial.c - connections one after the other, as fast as they go, each with some messages that
 * are echoed and compared. Knows nothing of loopfuse.
 *
 *   serial server PORT
 *   serial client PORT FIRST MORE MESSAGES
 *
 * The client makes FIRST connections, prints "warm" and waits for a line; then MORE of them,
 * prints "done" and waits for another line. So somebody can look at both processes while no
 * connection is there. Exit status 0: every echo was right.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORDS = 8 };

static _Noreturn void fail(const char *what, uint64_t connection)
{
	fprintf(stderr, "serial: connection %llu: %s: %s\n", (unsigned long long)connection, what,
		strerror(errno));
	exit(1);
}

static void serve(struct sockaddr_in *addr)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)addr, sizeof(*addr)) || listen(listener, 128))
		fail("bind", 0);
	for (uint64_t number = 0;; number++) {
		char buf[4096];
		ssize_t n;
		int fd = accept(listener, NULL, NULL);
		if (fd == -1)
			fail("accept", number);
		while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
			if (send(fd, buf, (size_t)n, 0) != n)
				fail("server's send", number);
		if (n < 0)
			fail("server's recv", number);
		close(fd);
	}
}

static void fill(uint64_t words[WORDS], uint64_t connection, uint64_t message)
{
	for (uint64_t i = 0; i < WORDS; i++)
		words[i] = (connection * 1000003 + message * 31 + i) * 0x9e3779b97f4a7c15u;
}

static void once(const struct sockaddr_in *addr, uint64_t connection, uint64_t messages)
{
	uint64_t sent[WORDS], echo[WORDS];
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd == -1 || connect(fd, (const struct sockaddr *)addr, sizeof(*addr)))
		fail("connect", connection);
	for (uint64_t message = 0; message < messages; message++) {
		fill(sent, connection, message);
		if (send(fd, sent, sizeof(sent), 0) != sizeof(sent))
			fail("send", connection);
		if (recv(fd, echo, sizeof(echo), MSG_WAITALL) != sizeof(echo))
			fail("recv", connection);
		if (memcmp(sent, echo, sizeof(sent)) != 0) {
			errno = EBADMSG;
			fail("a message did not come back as it was sent", connection);
		}
	}
	close(fd);
}

static void wait_for_a_line(const char *said)
{
	puts(said);
	fflush(stdout);
	for (int c = 0; c != '\n' && c != EOF;)
		c = getchar();
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)atoi(argv[2])),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (strcmp(argv[1], "server") == 0)
		serve(&addr);
	if (argc < 6)
		return 2;
	uint64_t first = strtoull(argv[3], NULL, 10), more = strtoull(argv[4], NULL, 10);
	uint64_t messages = strtoull(argv[5], NULL, 10);
	for (uint64_t i = 0; i < first; i++)
		once(&addr, i, messages);
	wait_for_a_line("warm");
	for (uint64_t i = first; i < first + more; i++)
		once(&addr, i, messages);
	wait_for_a_line("done");
	return 0;
}
