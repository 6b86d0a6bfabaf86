/* strange_children.c - a child of another kind than fork's closes its copy of a socket that is not
 * fused yet, and opens others; the parent goes on. Or fork's, but made by a signal handler. */
#include "shared_page.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>

pid_t __fork(void);
int __clone(int (*run)(void *), void *stack, int flags, void *arg, ...);

static int connection;

static void close_and_open(void)
{
	close(connection);
	for (int i = 0; i < 3; i++)
		close(socket(AF_INET, SOCK_STREAM, 0));
	(void)socket(AF_INET, SOCK_STREAM, 0);
}

static int in_a_clone(void *nothing)
{
	(void)nothing;
	close_and_open();
	syscall(SYS_exit, 0);
	return 0;
}

static pid_t by_vfork(void)
{
	pid_t child = vfork();
	if (child == 0) {
		close_and_open();
		_exit(0);
	}
	return child;
}

static pid_t by_clone(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	return clone(in_a_clone, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
}

static pid_t by_clones_other_name(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	return __clone(in_a_clone, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
}

static void have_no_more_children(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		abort();
}

static pid_t by_a_fork_that_fails(void)
{
	have_no_more_children();
	return fork();
}

static pid_t by_forks_other_name(void)
{
	have_no_more_children();
	return __fork();
}

/* As fork, past the C library. */
static pid_t by_itself(void)
{
	pid_t child;
#if defined(__x86_64__)
	register long zero __asm__("r10") = 0;
	register long none __asm__("r8") = 0;
	__asm__ volatile("syscall"
			 : "=a"(child)
			 : "a"(SYS_clone), "D"((long)SIGCHLD), "S"(0L), "d"(0L), "r"(zero), "r"(none)
			 : "rcx", "r11", "memory");
#else
	child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
#endif
	if (child == 0)
		in_a_clone(NULL);
	return child;
}

static pid_t by_fork_alone(void)
{
	pid_t child = _Fork();
	if (child == 0)
		in_a_clone(NULL);
	return child;
}

static void go_on_after(pid_t (*make)(void))
{
	int port, listener = listen_somewhere(&port), status = -1;
	pid_t client = fork();
	if (client == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(listener);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect_to(fd, port) == -1)
			abort();
		warm(fd, 1);
		pause();
	}
	connection = accept(listener, NULL, NULL);
	no_delay(connection);
	pid_t child = make();
	if (child == -1)
		say("no child: %s\n", strerror(errno));
	else if (waitpid(child, &status, 0) == child)
		say("the child ended with %d\n", status);
	int more = socket(AF_INET, SOCK_STREAM, 0);
	warm(connection, 0);
	close(more);
	say("and here it goes on\n");
	kill(client, SIGKILL);
	waitpid(client, NULL, 0);
}

static void vfork_child(void)
{
	go_on_after(by_vfork);
}

static void clone_child(void)
{
	go_on_after(by_clone);
}

static void other_clone_child(void)
{
	go_on_after(by_clones_other_name);
}

static void no_child(void)
{
	go_on_after(by_a_fork_that_fails);
}

static void no_child_by_the_other_name(void)
{
	go_on_after(by_forks_other_name);
}

static void system_call_child(void)
{
	go_on_after(by_itself);
}

static void fork_alone_child(void)
{
	go_on_after(by_fork_alone);
}

/* --- a handler forks in the middle of a call on a fused socket, which goes on in the child --- */

static pid_t made_by_handler = -1;

static void make_a_child(int signal)
{
	(void)signal;
	made_by_handler = fork();
}

/* Then it says who read what it sends next. */
static void interrupt_then_send(int fd)
{
	char byte;
	usleep(300 * 1000);
	kill(getppid(), SIGUSR1);
	usleep(300 * 1000);
	for (int i = 0; i < 2; i++)
		if (send(fd, "x", 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
			abort();
	if (recv(fd, &byte, 1, 0) != 1) /* the child is ready */
		abort();
	usleep(300 * 1000);
	struct timeval patience = {5, 0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)!send(fd, "y\n", 2, 0);
	say("%zd back\n", recv(fd, &byte, 1, 0));
	kill(getppid(), SIGUSR2);
	pause();
}

static void give_back_one(int fd)
{
	char byte;
	if (recv(fd, &byte, 1, 0) != 1 || send(fd, &byte, 1, 0) != 1)
		abort();
}

static void fork_in_a_receive(int fd)
{
	const struct sigaction forks = {.sa_handler = make_a_child, .sa_flags = SA_RESTART};
	sigset_t over;
	int signal;
	sigemptyset(&over);
	sigaddset(&over, SIGUSR2);
	sigprocmask(SIG_BLOCK, &over, NULL);
	sigaction(SIGUSR1, &forks, NULL);
	give_back_one(fd); /* in the parent and in the child, one byte each */
	if (made_by_handler == 0) {
		char command[64];
		await_stage(1); /* or the shell would take the parent's byte */
		snprintf(command, sizeof(command), "echo >&%d; head -n1 <&%d >&%d", fd, fd, fd);
		execl("/bin/sh", "sh", "-c", command, NULL);
		abort();
	}
	shared->stage = 1;
	sigwait(&over, &signal);
	kill(made_by_handler, SIGKILL);
	waitpid(made_by_handler, NULL, 0);
}

static void fork_in_a_poll(int fd)
{
	const struct sigaction forks = {.sa_handler = make_a_child};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int status = -1;
	sigaction(SIGUSR1, &forks, NULL);
	while (made_by_handler == -1)
		(void)poll(&p, 1, -1);
	if (made_by_handler == 0) {
		give_back_one(fd);
		close(fd);
		for (int i = 0; i < 3; i++)
			close(socket(AF_INET, SOCK_STREAM, 0));
		_exit(0);
	}
	waitpid(made_by_handler, &status, 0);
	say("the child ended with %d\n", status);
	give_back_one(fd);
	say("and here it goes on\n");
}

static void forked_in_a_receive(void)
{
	share();
	act(interrupt_then_send, fork_in_a_receive);
}

static void forked_in_a_poll(void)
{
	act(interrupt_then_send, fork_in_a_poll);
}

/* --- fork's children, made while another thread's connection is being fused --- */

static void *echo(void *unused)
{
	char byte;
	while (recv(connection, &byte, 1, 0) == 1 && send(connection, &byte, 1, MSG_NOSIGNAL) == 1)
		;
	return unused;
}

/* What a child that closes its copy opens next has this number. */
static int first_number_in_a_child(void)
{
	int status = 0;
	pid_t child = fork();
	if (child == 0) {
		close(connection);
		_exit(open("/dev/null", O_RDONLY));
	}
	waitpid(child, &status, 0);
	return WEXITSTATUS(status);
}

static void beside_a_thread(void)
{
	int status, others = 0;
	for (int i = 0; i < 5; i++) {
		int port, listener = listen_somewhere(&port);
		pthread_t thread;
		pid_t client = fork();
		if (client == 0) {
			close(listener);
			close(ask_until_fused(port, 300));
			_exit(0);
		}
		connection = accept(listener, NULL, NULL);
		close(listener);
		no_delay(connection);
		int first = first_number_in_a_child();
		pthread_create(&thread, NULL, echo, NULL);
		while (waitpid(client, &status, WNOHANG) == 0)
			others += first_number_in_a_child() != first;
		pthread_join(thread, NULL);
		close(connection);
	}
	say("%d children had other numbers\n", others);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"vfork", vfork_child},
		{"clone", clone_child},
		{"clones-other-name", other_clone_child},
		{"failed-fork", no_child},
		{"failed-forks-other-name", no_child_by_the_other_name},
		{"system-call", system_call_child},
		{"fork-alone", fork_alone_child},
		{"in-a-receive", forked_in_a_receive},
		{"in-a-poll", forked_in_a_poll},
		{"beside-a-thread", beside_a_thread},
		{NULL, NULL},
	};
	return act_out(scenarios, argc, argv);
}
