/* injector.c - preloaded behind the library under test, it stands between that and the C library:
 * counts the calls that come from there, and lets chosen ones fail as the kernel might.
 *
 * What is to fail, and what was counted, lies in the file that FAULTS_CONTROL names, mapped by
 * every process of a run; faults/control.py is its other side. A call is known by where it comes
 * from: the offset of its return address in the file whose path ends in FAULTS_CALLER. Without
 * FAULTS_CALLER every caller counts, and calls are told apart by their names only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { SITES = 512, NAME = 16 };
/* Beside errno values. */
enum { SHORT = -1, NO_RIGHTS = -2, KILL = -3, STOP = -4, KILL_AFTER = -5 };

struct site {
	_Atomic uint32_t offset; /* of the return address */
	_Atomic uint32_t count;
	char name[NAME];
};

struct control {
	uint32_t offset;       /* which call is to fail: from here, 0: from anywhere, and */
	char name[NAME];       /* of this name */
	uint32_t nth;          /* the first that fails, from 1; 0: none */
	uint32_t times;        /* so many in a row fail */
	int32_t error;         /* errno, or what stands above */
	_Atomic uint32_t seen; /* such calls so far */
	_Atomic uint32_t fired;
	int64_t jump_ns;       /* added to CLOCK_REALTIME */
	struct site sites[SITES];
};

/* As faults/control.py has it. */
_Static_assert(offsetof(struct control, seen) == 32, "seen");
_Static_assert(offsetof(struct control, jump_ns) == 40, "jump_ns");
_Static_assert(offsetof(struct control, sites) == 48, "sites");
_Static_assert(sizeof(struct site) == 24, "site");

static struct control *control;
static uintptr_t first, last; /* the caller's code */

static int find_caller(struct dl_phdr_info *info, size_t size, void *wanted)
{
	(void)size;
	const char *suffix = wanted;
	size_t n = strlen(info->dlpi_name), m = strlen(suffix);
	if (n < m || strcmp(info->dlpi_name + n - m, suffix) != 0)
		return 0;
	first = info->dlpi_addr;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		uintptr_t end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
		if (info->dlpi_phdr[i].p_type == PT_LOAD && end > last)
			last = end;
	}
	return 1;
}

static void begin(void)
{
	static bool begun;
	if (begun)
		return;
	begun = true;
	const char *path = getenv("FAULTS_CONTROL"), *caller = getenv("FAULTS_CALLER");
	int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
	if (fd == -1)
		return;
	void *at = (void *)syscall(SYS_mmap, NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED,
				   fd, 0L);
	syscall(SYS_close, fd);
	if (caller)
		dl_iterate_phdr(find_caller, (void *)(uintptr_t)caller);
	else
		last = UINTPTR_MAX;
	if (at != MAP_FAILED)
		control = at;
}

static void count(uint32_t offset, const char *name)
{
	for (struct site *site = control->sites; site < control->sites + SITES; site++) {
		uint32_t there = 0;
		if (atomic_load(&site->offset) == 0 &&
		    atomic_compare_exchange_strong(&site->offset, &there, offset))
			strncpy(site->name, name, NAME - 1);
		if (atomic_load(&site->offset) == offset &&
		    (last != UINTPTR_MAX || strncmp(site->name, name, NAME - 1) == 0)) {
			atomic_fetch_add(&site->count, 1);
			return;
		}
	}
}

/* What is to become of the call that returns to `to`: 0: nothing. */
static int verdict(const char *name, const void *to)
{
	begin();
	uintptr_t at = (uintptr_t)to;
	if (!control || at < first || at >= last)
		return 0;
	uint32_t offset = last == UINTPTR_MAX ? 1 : (uint32_t)(at - first);
	count(offset, name);
	if (control->nth == 0 || strncmp(control->name, name, NAME - 1) != 0 ||
	    (control->offset && control->offset != offset))
		return 0;
	uint32_t seen = atomic_fetch_add(&control->seen, 1) + 1;
	if (seen < control->nth || seen - control->nth >= control->times)
		return 0;
	atomic_fetch_add(&control->fired, 1);
	if (control->error == KILL)
		syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
	if (control->error == STOP)
		syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP);
	return control->error == KILL || control->error == STOP ? 0 : control->error;
}

/* ISO C has no conversion from void * to a function pointer; POSIX promises this one. */
#define NEXT(call, name)                                      \
	static void *found_##name;                            \
	if (!found_##name)                                    \
		found_##name = dlsym(RTLD_NEXT, #name);       \
	*(void **)&call = found_##name

#define EXPORT __attribute__((visibility("default")))

/* What the call says, or what it is told to fail with. */
#define ANSWER(name, call, failed)                                                         \
	do {                                                                               \
		int error = verdict(name, __builtin_return_address(0));                    \
		if (error <= 0)                                                            \
			return (call);                                                     \
		errno = error;                                                             \
		return (failed);                                                           \
	} while (0)

#define FAILS(type, failed, name, parameters, arguments)                                   \
	EXPORT type name parameters                                                        \
	{                                                                                  \
		type(*call) parameters;                                                    \
		NEXT(call, name);                                                          \
		ANSWER(#name, call arguments, failed);                                 \
	}

FAILS(int, -1, socket, (int a, int b, int c), (a, b, c))
FAILS(int, -1, socketpair, (int a, int b, int c, int d[2]), (a, b, c, d))
FAILS(int, -1, bind, (int a, const struct sockaddr *b, socklen_t c), (a, b, c))
FAILS(int, -1, listen, (int a, int b), (a, b))
FAILS(int, -1, accept4, (int a, struct sockaddr *b, socklen_t *c, int d), (a, b, c, d))
FAILS(int, -1, connect, (int a, const struct sockaddr *b, socklen_t c), (a, b, c))
FAILS(int, -1, getsockopt, (int a, int b, int c, void *d, socklen_t *e), (a, b, c, d, e))
FAILS(int, -1, setsockopt, (int a, int b, int c, const void *d, socklen_t e), (a, b, c, d, e))
FAILS(int, -1, getpeername, (int a, struct sockaddr *b, socklen_t *c), (a, b, c))
FAILS(int, -1, getsockname, (int a, struct sockaddr *b, socklen_t *c), (a, b, c))
FAILS(int, -1, shutdown, (int a, int b), (a, b))
FAILS(int, -1, poll, (struct pollfd * a, nfds_t b, int c), (a, b, c))
FAILS(int, -1, ppoll, (struct pollfd * a, nfds_t b, const struct timespec *c, const sigset_t *d),
      (a, b, c, d))
FAILS(int, -1, epoll_create1, (int a), (a))
FAILS(int, -1, epoll_ctl, (int a, int b, int c, struct epoll_event *d), (a, b, c, d))
FAILS(int, -1, epoll_wait, (int a, struct epoll_event *b, int c, int d), (a, b, c, d))
FAILS(int, -1, epoll_pwait, (int a, struct epoll_event *b, int c, int d, const sigset_t *e),
      (a, b, c, d, e))
FAILS(int, -1, signalfd, (int a, const sigset_t *b, int c), (a, b, c))
FAILS(int, -1, prlimit, (pid_t a, enum __rlimit_resource b, const struct rlimit *c, struct rlimit *d),
      (a, b, c, d))
FAILS(int, -1, madvise, (void *a, size_t b, int c), (a, b, c))
FAILS(int, -1, fstat, (int a, struct stat *b), (a, b))
FAILS(off_t, -1, lseek, (int a, off_t b, int c), (a, b, c))
FAILS(int, -1, ftruncate, (int a, off_t b), (a, b))
FAILS(int, -1, ftruncate64, (int a, off64_t b), (a, b))
FAILS(int, -1, memfd_create, (const char *a, unsigned b), (a, b))
FAILS(int, -1, dup, (int a), (a))
FAILS(int, -1, nanosleep, (const struct timespec *a, struct timespec *b), (a, b))
FAILS(ssize_t, -1, getrandom, (void *a, size_t b, unsigned c), (a, b, c))

/* What the kernel has no memory for: touched, such a page is SIGBUS, or EFAULT in a system call. So
 * are those of a file that has none. */
static bool empty(uint8_t *at, size_t size)
{
	int fd = (int)syscall(SYS_memfd_create, "nothing", 0);
	void *there = (void *)syscall(SYS_mmap, at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
				      fd, 0L);
	syscall(SYS_close, fd);
	return there == at;
}

/* With FAULTS_ROOM there is so much for each ring of a segment, beside the page in the middle. */
static void leave_little_room(uint8_t *at, size_t size)
{
	const char *text = getenv("FAULTS_ROOM");
	size_t room = text ? (size_t)atoi(text) : 0, ring = (size - 4096) / 2;
	if (text && room < ring && empty(at, ring - room) &&
	    empty(at + ring + 4096 + room, ring - room))
		atomic_fetch_add(&control->fired, 1);
}

EXPORT void *mmap(void *at, size_t size, int rights, int flags, int fd, off_t offset)
{
	void *(*call)(void *, size_t, int, int, int, off_t);
	NEXT(call, mmap);
	int error = verdict("mmap", __builtin_return_address(0));
	if (error > 0) {
		errno = error;
		return MAP_FAILED;
	}
	void *there = call(at, size, rights, flags, fd, offset);
	if (control && there != MAP_FAILED && flags == MAP_SHARED && fd >= 0 && size > 1 << 20)
		leave_little_room(there, size);
	return there;
}

/* The kernel lets go of the number whatever it says. */
EXPORT int close(int fd)
{
	int (*call)(int);
	NEXT(call, close);
	int error = verdict("close", __builtin_return_address(0)), r = call(fd);
	if (error <= 0)
		return r;
	errno = error;
	return -1;
}

#define FCNTL(name)                                                                    \
	EXPORT int name(int fd, int command, ...)                                      \
	{                                                                              \
		int (*call)(int, int, ...);                                            \
		NEXT(call, name);                                                      \
		va_list ap;                                                            \
		va_start(ap, command);                                                 \
		long argument = va_arg(ap, long);                                      \
		va_end(ap);                                                            \
		ANSWER("fcntl", call(fd, command, argument), -1);                      \
	}
FCNTL(fcntl)
FCNTL(fcntl64)

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	int (*call)(int, unsigned long, ...);
	NEXT(call, ioctl);
	va_list ap;
	va_start(ap, request);
	long argument = va_arg(ap, long);
	va_end(ap);
	ANSWER("ioctl", call(fd, request, argument), -1);
}

#define OPENAT(name)                                                                   \
	EXPORT int name(int directory, const char *path, int flags, ...)               \
	{                                                                              \
		int (*call)(int, const char *, int, ...);                              \
		NEXT(call, name);                                                      \
		va_list ap;                                                            \
		va_start(ap, flags);                                                   \
		mode_t mode = va_arg(ap, mode_t);                                      \
		va_end(ap);                                                            \
		ANSWER("open", call(directory, path, flags, mode), -1);                \
	}
OPENAT(openat)
OPENAT(openat64)

/* `open` is a call without a folder. */
#define OPEN(name)                                                                     \
	EXPORT int name(const char *path, int flags, ...)                              \
	{                                                                              \
		int (*call)(const char *, int, ...);                                   \
		NEXT(call, name);                                                      \
		va_list ap;                                                            \
		va_start(ap, flags);                                                   \
		mode_t mode = va_arg(ap, mode_t);                                      \
		va_end(ap);                                                            \
		ANSWER("open", call(path, flags, mode), -1);                           \
	}
OPEN(open)
OPEN(open64)

/* --- what can also move fewer bytes than it was asked for --- */

static size_t fewer(size_t n)
{
	return n > 1 ? n / 2 : n;
}

#define MOVES(type, name, parameters, arguments, n)                            \
	EXPORT type name parameters                                            \
	{                                                                      \
		type(*call) parameters;                                        \
		NEXT(call, name);                                              \
		int error = verdict(#name, __builtin_return_address(0));       \
		if (error > 0) {                                               \
			errno = error;                                         \
			return -1;                                             \
		}                                                              \
		if (error == SHORT)                                            \
			n = fewer(n);                                          \
		return call arguments;                                         \
	}

MOVES(ssize_t, read, (int a, void *b, size_t n), (a, b, n), n)
MOVES(ssize_t, write, (int a, const void *b, size_t n), (a, b, n), n)
MOVES(ssize_t, send, (int a, const void *b, size_t n, int c), (a, b, n, c), n)
MOVES(ssize_t, recv, (int a, void *b, size_t n, int c), (a, b, n, c), n)
MOVES(ssize_t, pread64, (int a, void *b, size_t n, off64_t c), (a, b, n, c), n)
MOVES(ssize_t, pwrite64, (int a, const void *b, size_t n, off64_t c), (a, b, n, c), n)
MOVES(ssize_t, pwrite, (int a, const void *b, size_t n, off_t c), (a, b, n, c), n)
MOVES(ssize_t, sendto, (int a, const void *b, size_t n, int c, const struct sockaddr *d, socklen_t e),
      (a, b, n, c, d, e), n)
MOVES(ssize_t, recvfrom, (int a, void *b, size_t n, int c, struct sockaddr *d, socklen_t *e),
      (a, b, n, c, d, e), n)

/* The message with its first piece, or half of it if there is no other. */
static struct msghdr part_of(const struct msghdr *whole, struct iovec *piece)
{
	struct msghdr part = *whole;
	if (part.msg_iovlen == 1) {
		*piece = *part.msg_iov;
		piece->iov_len = fewer(piece->iov_len);
		part.msg_iov = piece;
	} else if (part.msg_iovlen) {
		part.msg_iovlen = 1;
	}
	return part;
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t (*call)(int, const struct msghdr *, int);
	NEXT(call, sendmsg);
	int error = verdict("sendmsg", __builtin_return_address(0));
	struct iovec piece;
	struct msghdr part;
	if (error > 0) {
		errno = error;
		return -1;
	}
	if (error == SHORT) {
		part = part_of(message, &piece);
		message = &part;
	}
	ssize_t r = call(fd, message, flags);
	if (error == KILL_AFTER)
		syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
	return r;
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	ssize_t (*call)(int, struct msghdr *, int);
	NEXT(call, recvmsg);
	int error = verdict("recvmsg", __builtin_return_address(0));
	struct iovec piece;
	struct msghdr part;
	if (error > 0) {
		errno = error;
		return -1;
	}
	if (error == SHORT) {
		part = part_of(message, &piece);
		return call(fd, &part, flags);
	}
	if (error == NO_RIGHTS) { /* no numbers left: the kernel drops what came along */
		message->msg_control = NULL;
		message->msg_controllen = 0;
	}
	return call(fd, message, flags);
}

/* --- by number --- */

EXPORT long syscall(long number, ...)
{
	long (*call)(long, ...);
	NEXT(call, syscall);
	va_list ap;
	va_start(ap, number);
	long a[6];
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	const char *name = number == SYS_ppoll ? "ppoll" : number == SYS_recvfrom ? "recvfrom" : NULL;
	int error = name ? verdict(name, __builtin_return_address(0)) : 0;
	if (error > 0) {
		errno = error;
		return -1;
	}
	return call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* --- the wall clock --- */

EXPORT int clock_gettime(clockid_t clock, struct timespec *time)
{
	int (*call)(clockid_t, struct timespec *);
	NEXT(call, clock_gettime);
	int r = call(clock, time);
	begin();
	if (r == 0 && control && control->jump_ns &&
	    (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
		int64_t ns = time->tv_sec * INT64_C(1000000000) + time->tv_nsec + control->jump_ns;
		*time = (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
	}
	return r;
}
