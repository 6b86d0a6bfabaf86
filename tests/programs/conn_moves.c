/* conn_moves.c - a socket whose bytes are to be read another way, or by nobody any more. */
#include "two_ends.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

/* --- closed by one thread while another one sleeps in a receive; the number is another
 * connection's next --- */

static int second_listener, second_port;

static void send_to_both(int fd)
{
	usleep(300 * 1000);
	int second = socket(AF_INET, SOCK_STREAM, 0);
	connect_to(second, second_port);
	send(second, "to the second", 13, 0);
	usleep(300 * 1000);
	send(fd, "to the first", 12, 0);
	pause();
}

static void *receive_once(void *fd)
{
	char bytes[32] = "";
	ssize_t n = recv(*(int *)fd, bytes, sizeof(bytes) - 1, 0);
	say("begun on the first: %zd \"%s\"\n", n, bytes);
	return NULL;
}

static void close_under_a_receive(int fd)
{
	pthread_t receiver;
	int first = fd;
	char bytes[32] = "";
	pthread_create(&receiver, NULL, receive_once, &first);
	usleep(150 * 1000);
	close(fd);
	int second = accept(second_listener, NULL, NULL);
	pthread_join(receiver, NULL);
	ssize_t n = recv(second, bytes, sizeof(bytes) - 1, 0);
	say("on the second, of %s number: %zd \"%s\"\n", second == first ? "the same" : "another", n, bytes);
}

static void closed(void)
{
	second_listener = listen_somewhere(&second_port);
	act(send_to_both, close_under_a_receive);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"closed", closed},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
