/* cancelled.c - threads that are cancelled in calls on a connection. */
#include "shared_page.h"

/* A call in a thread with a cancellation pending, which acts from then on. */
static void *make_while_cancelled(void *argument)
{
	struct call *call = argument;
	int state;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_cancel(pthread_self());
	call->make(call);
	call->over = 1;
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
	pthread_testcancel();
	return NULL;
}

static int is_cancelled(struct call *call)
{
	void *result;
	pthread_create(&call->thread, NULL, make_while_cancelled, call);
	pthread_join(call->thread, &result);
	return result == PTHREAD_CANCELED;
}

/* --- in each of the first sends of a connection, of which one has it fused --- */

enum { SENDS = 14 };

static void send_then_be_cancelled(struct call *call)
{
	int state;
	for (long i = 0; i < call->result; i++)
		(void)!send(call->fd, "x", 1, 0);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
	(void)!send(call->fd, "x", 1, 0);
}

static void connect_often(int port)
{
	for (int i = 0; i <= SENDS; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		connect_to(fd, port);
		if (i == SENDS)
			warm(fd, 1);
	}
	pause();
}

static void first_sends(void)
{
	int port, listener = listen_somewhere(&port), cancelled = 0;
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		connect_often(port);
	}
	for (int i = 0; i < SENDS; i++) {
		struct call call = {.make = send_then_be_cancelled, .result = i};
		call.fd = accept(listener, NULL, NULL);
		cancelled += is_cancelled(&call);
	}
	say("%d threads were cancelled\n", cancelled);
	int fd = accept(listener, NULL, NULL);
	no_delay(fd);
	warm(fd, 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

int main(int argc, char **argv)
{
	static const struct scenario all[] = {
		{"first-sends", first_sends},
		{0},
	};
	share();
	alarm(40);
	return act_out(all, argc, argv);
}
