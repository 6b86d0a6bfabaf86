/* interpose_process.c - fork, exec, exit: what happens to fused sockets when
 * processes come and go.
 *
 * fork: nothing to do but to count (pthread_atfork handlers in start.c); parent and
 * child share segment, doorbell and slot. exec: the library and its maps are gone from
 * the new program, so sockets that it inherits are defused first. exit: the kernel
 * closes; we only say that one holder is gone, and see to RST where close would.
 */
#define _GNU_SOURCE
#include "clock.h"
#include "conn.h"
#include "departure.h"
#include "invariant.h"
#include "lock.h"
#include "real.h"
#include "start.h"

#include <alloca.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wordexp.h>

/* fork itself is the C library's: the atfork handlers count holders. Only its failure
 * they can't see. */
LF_EXPORT pid_t fork(void)
{
	lf_start();
	pid_t child = lf_real.fork();
	if (child == -1 && lf_started) {
		int saved = errno;
		lf_sock_fork_failed();
		errno = saved;
	}
	return child;
}

LF_EXPORT pid_t __fork(void)
{
	return fork();
}

/* --- exec --- */

/* Somebody goes on with the socket beside the new program: the parent whose memory this
 * process borrows, or a process that was forked. */
static bool others_stay(const struct lf_sock *sock)
{
	return lf_in_borrowed_memory() || lf_sock_shared(sock);
}

static bool inherited(const struct lf_sock *sock)
{
	/* Another descriptor of the same socket may lack the flag. */
	if (atomic_load(&sock->descriptors) > 1)
		return true;
	int flags = lf_real.fcntl(atomic_load(&sock->fd), F_GETFD);
	return flags != -1 && !(flags & FD_CLOEXEC);
}

/* What is not inherited, exec closes. In borrowed memory the parent goes on with it. */
static void defuse_if_inherited(struct lf_sock *sock, void *deadline)
{
	int fd = atomic_load(&sock->fd);
	if (inherited(sock))
		lf_conn_defuse_until(sock, fd, LF_REASON_EXEC, others_stay(sock),
				     *(const int64_t *)deadline);
	else if (!lf_in_borrowed_memory())
		lf_conn_before_exec_closes(sock, fd);
}

/* This process counts as a holder no more, though it may still be at work, or come back. Others may
 * be paired then, and leave it behind without their segment: where nobody would know of it, it goes
 * on counting. */
static void count_out(struct lf_sock *sock, void *begun)
{
	int departure = *(const int *)begun;
	if (departure == LF_NO_DEPARTURE && lf_sock_shared(sock) && !lf_sock_paired(sock))
		return;
	lf_departure_leaves(departure, sock->slot);
	if (!atomic_exchange(&sock->left, 1))
		lf_count_down(&sock->slot->holders);
}

/* A process that is about to become another program takes no part in any ring. What the
 * program inherits was defused, so that nobody takes that socket for unshared. */
static void leave_for_exec(struct lf_sock *sock, void *begun)
{
	if (lf_sock_shared(sock))
		count_out(sock, begun);
}

static void return_to(struct lf_sock *sock, void *begun)
{
	if (!atomic_exchange(&sock->left, 0))
		return;
	atomic_fetch_add(&sock->slot->holders, 1);
	lf_departure_returns(*(const int *)begun, sock->slot);
}

/* The kernel gives another thread the first one's number before it lets go of what that one holds. */
static bool keeps_its_number(void)
{
	return lf_lock_tid() == (uint32_t)getpid();
}

/* What still_here() is to be given. */
static int before_exec(void)
{
	if (!lf_started)
		return LF_NO_DEPARTURE;
	int saved = errno, begun = LF_NO_DEPARTURE;
	/* One time limit for all sockets of one exec. */
	int64_t deadline = lf_deadline(LF_TAKE_BACK_NS);
	lf_sock_each(defuse_if_inherited, &deadline);
	if (!lf_in_borrowed_memory()) {
		if (keeps_its_number())
			begun = lf_departure_begin();
		lf_sock_each(leave_for_exec, &begun);
	}
	errno = saved;
	return begun;
}

/* exec has failed: we are still here. */
static int still_here(int begun, int r)
{
	int saved = errno;
	if (lf_started && !lf_in_borrowed_memory()) {
		lf_sock_each(return_to, &begun);
		lf_departure_end(begun);
	}
	errno = saved;
	return r;
}

LF_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	lf_start();
	int begun = before_exec();
	return still_here(begun, lf_real.execve(path, argv, envp));
}

LF_EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

LF_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	lf_start();
	int begun = before_exec();
	return still_here(begun, lf_real.execvpe(file, argv, envp));
}

LF_EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

LF_EXPORT int execveat(int folder, const char *path, char *const argv[], char *const envp[], int flags)
{
	static int (*real)(int, const char *, char *const[], char *const[], int);
	if (!real)
		real = lf_real_symbol("execveat");
	lf_start();
	if (!real) {
		errno = ENOSYS;
		return -1;
	}
	int begun = before_exec();
	return still_here(begun, real(folder, path, argv, envp, flags));
}

LF_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	lf_start();
	int begun = before_exec();
	return still_here(begun, lf_real.fexecve(fd, argv, envp));
}

/* The list forms: count, copy to an array, go on as the vector forms. */
#define COLLECT(first, argv, ap)                                                                  \
	size_t count_ = 1;                                                                        \
	va_list ap;                                                                               \
	va_start(ap, first);                                                                      \
	while (va_arg(ap, char *))                                                                \
		count_++;                                                                         \
	va_end(ap);                                                                               \
	char **argv = alloca((count_ + 1) * sizeof(*argv));                                       \
	va_start(ap, first);                                                                      \
	argv[0] = (char *)(uintptr_t)first;                                                       \
	for (size_t i_ = 1; i_ <= count_; i_++)                                                   \
		argv[i_] = va_arg(ap, char *)

LF_EXPORT int execl(const char *path, const char *arg, ...)
{
	COLLECT(arg, argv, ap);
	va_end(ap);
	return execve(path, argv, environ);
}

LF_EXPORT int execlp(const char *file, const char *arg, ...)
{
	COLLECT(arg, argv, ap);
	va_end(ap);
	return execvpe(file, argv, environ);
}

LF_EXPORT int execle(const char *path, const char *arg, ...)
{
	COLLECT(arg, argv, ap);
	char *const *envp = va_arg(ap, char *const *);
	va_end(ap);
	return execve(path, argv, envp);
}

/* A spawned program inherits what is not close-on-exec, and whatever its file actions dup. Those
 * are opaque, and may be older than the socket: so a call that has any counts as inheriting each
 * number that any ever named. */
static _Atomic uint64_t ever_duplicated[LF_TABLE_SIZE / 64];

static bool may_be_duplicated(int fd)
{
	return fd >= 0 && (atomic_load(&ever_duplicated[fd / 64]) >> (fd % 64) & 1);
}

struct spawning {
	bool may_duplicate;
	int64_t deadline; /* one for all sockets */
};

static void defuse_for_spawn(struct lf_sock *sock, void *context)
{
	const struct spawning *spawning = context;
	int fd = atomic_load(&sock->fd);
	if (inherited(sock) || (spawning->may_duplicate && may_be_duplicated(fd)))
		lf_conn_defuse_until(sock, fd, LF_REASON_EXEC, true, spawning->deadline);
}

LF_EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
	static int (*real)(posix_spawn_file_actions_t *, int, int);
	if (!real)
		real = lf_real_symbol("posix_spawn_file_actions_adddup2");
	if (fd >= 0 && (unsigned)fd < LF_TABLE_SIZE)
		atomic_fetch_or(&ever_duplicated[fd / 64], UINT64_C(1) << (fd % 64));
	return real(actions, fd, to);
}

static void before_spawn(const posix_spawn_file_actions_t *actions)
{
	if (!lf_started)
		return;
	int saved = errno;
	struct spawning spawning = {actions != NULL, lf_deadline(LF_TAKE_BACK_NS)};
	lf_sock_each(defuse_for_spawn, &spawning);
	errno = saved;
}

LF_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
			  const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	lf_start();
	before_spawn(actions);
	return lf_real.posix_spawn(pid, path, actions, attr, argv, envp);
}

LF_EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
			   const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	lf_start();
	before_spawn(actions);
	return lf_real.posix_spawnp(pid, file, actions, attr, argv, envp);
}

/* glibc has these from 2.39 on; where it has not, who looks for them is told so. */
typedef int lf_pidfd_spawn(int *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
			   char *const[], char *const[]);

#define PIDFD_SPAWN(name)                                                                           \
	LF_EXPORT int name(int *pidfd, const char *file, const posix_spawn_file_actions_t *actions,   \
			   const posix_spawnattr_t *attr, char *const argv[], char *const envp[])     \
	{                                                                                             \
		static lf_pidfd_spawn *real;                                                          \
		if (!real)                                                                            \
			real = lf_real_symbol(#name);                                                 \
		lf_start();                                                                           \
		if (!real)                                                                            \
			return ENOSYS;                                                                \
		before_spawn(actions);                                                                \
		int error = real(pidfd, file, actions, attr, argv, envp);                             \
		if (error == 0 && pidfd)                                                              \
			lf_fd_born(*pidfd);                                                           \
		return error;                                                                         \
	}

PIDFD_SPAWN(pidfd_spawn)
PIDFD_SPAWN(pidfd_spawnp)

LF_EXPORT FILE *popen(const char *command, const char *mode)
{
	lf_start();
	before_spawn(NULL);
	return lf_real.popen(command, mode);
}

LF_EXPORT int system(const char *command)
{
	lf_start();
	before_spawn(NULL);
	return lf_real.system(command);
}

/* It may run a shell. */
LF_EXPORT int wordexp(const char *words, wordexp_t *into, int flags)
{
	static int (*real)(const char *, wordexp_t *, int);
	if (!real)
		real = lf_real_symbol("wordexp");
	lf_start();
	if (!(flags & WRDE_NOCMD) && strpbrk(words, "`$"))
		before_spawn(NULL);
	return real(words, into, flags);
}

/* --- exit --- */

static void close_here(struct lf_sock *sock, void *context)
{
	(void)context;
	lf_conn_before_close(sock, atomic_load(&sock->fd), true);
}

static void leave_all(void)
{
	static _Atomic bool left;
	if (!lf_started || lf_in_borrowed_memory() || atomic_exchange(&left, true))
		return;
	lf_sock_each(close_here, NULL);
	/* Until the kernel has ended this thread: others run on while it flushes. */
	int departure = lf_departure_begin();
	lf_sock_each(count_out, &departure);
}

#ifdef __GLIBC__
/* A destructor of ours would come before those of the libraries that the program is linked with, which
 * may still use their sockets. Of what exit calls, the dynamic linker's call of all destructors was
 * registered later than this is, so it comes before it; and with this library's name, ours would take it
 * along. */
int __cxa_atexit(void (*function)(void *), void *argument, void *library);

static void at_exit(void *nothing)
{
	(void)nothing;
	leave_all();
}

static void register_for_exit(void)
{
	(void)__cxa_atexit(at_exit, NULL, NULL);
}
#else
static void register_for_exit(void) {}

__attribute__((destructor)) static void at_exit(void)
{
	leave_all();
}
#endif

/* quick_exit runs no destructors. The first to be registered is the last to be called. */
__attribute__((constructor)) static void at_start(void)
{
	register_for_exit();
	(void)at_quick_exit(leave_all);
}

LF_EXPORT _Noreturn void _exit(int status)
{
	leave_all();
	lf_real._exit(status);
	__builtin_unreachable();
}

LF_EXPORT _Noreturn void _Exit(int status)
{
	_exit(status);
}
