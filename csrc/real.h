/* real.h - the C library's own functions behind the names we interpose.
 *
 * Each pointer starts as a bare system call and is replaced by dlsym(RTLD_NEXT) in
 * lf_real_init(), so calls that arrive before our constructor ran (from another
 * library's constructor, or from inside dlsym itself) still work.
 */
#ifndef LF_REAL_H
#define LF_REAL_H

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

typedef void lf_handler(int);

struct lf_real {
	int (*connect)(int, const struct sockaddr *, socklen_t);
	int (*listen)(int, int);
	int (*accept4)(int, struct sockaddr *, socklen_t *, int);
	ssize_t (*recvmsg)(int, struct msghdr *, int);
	ssize_t (*sendmsg)(int, const struct msghdr *, int);
	ssize_t (*read)(int, void *, size_t);
	ssize_t (*readv)(int, const struct iovec *, int);
	ssize_t (*write)(int, const void *, size_t);
	ssize_t (*writev)(int, const struct iovec *, int);
	ssize_t (*recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
	ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
	int (*recvmmsg)(int, struct mmsghdr *, unsigned, int, struct timespec *);
	int (*sendmmsg)(int, struct mmsghdr *, unsigned, int);
	ssize_t (*sendfile)(int, int, off_t *, size_t);
	ssize_t (*splice)(int, off64_t *, int, off64_t *, size_t, unsigned);
	int (*poll)(struct pollfd *, nfds_t, int);
	int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
	int (*select)(int, fd_set *, fd_set *, fd_set *, struct timeval *);
	int (*pselect)(int, fd_set *, fd_set *, fd_set *, const struct timespec *,
		       const sigset_t *);
	int (*epoll_create1)(int);
	int (*epoll_ctl)(int, int, int, struct epoll_event *);
	int (*epoll_wait)(int, struct epoll_event *, int, int);
	int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
	int (*epoll_pwait2)(int, struct epoll_event *, int, const struct timespec *,
			    const sigset_t *);
	int (*shutdown)(int, int);
	int (*close)(int);
	int (*close_range)(unsigned, unsigned, int);
	int (*dup)(int);
	int (*dup2)(int, int);
	int (*dup3)(int, int, int);
	int (*fcntl)(int, int, ...);
	int (*ioctl)(int, unsigned long, ...);
	int (*getsockopt)(int, int, int, void *, socklen_t *);
	int (*getpeername)(int, struct sockaddr *, socklen_t *);
	int (*setsockopt)(int, int, int, const void *, socklen_t);
	int (*sigaction)(int, const struct sigaction *, struct sigaction *);
	lf_handler *(*signal)(int, lf_handler *);
	lf_handler *(*bsd_signal)(int, lf_handler *);
	lf_handler *(*ssignal)(int, lf_handler *);
	lf_handler *(*sysv_signal)(int, lf_handler *);
	lf_handler *(*__sysv_signal)(int, lf_handler *);
	lf_handler *(*sigset)(int, lf_handler *);
	int (*sigignore)(int);
	int (*siginterrupt)(int, int);
	pid_t (*fork)(void);
	pid_t (*vfork)(void);
	int (*execve)(const char *, char *const[], char *const[]);
	int (*execvpe)(const char *, char *const[], char *const[]);
	int (*fexecve)(int, char *const[], char *const[]);
	int (*posix_spawn)(pid_t *, const char *, const posix_spawn_file_actions_t *,
			   const posix_spawnattr_t *, char *const[], char *const[]);
	int (*posix_spawnp)(pid_t *, const char *, const posix_spawn_file_actions_t *,
			    const posix_spawnattr_t *, char *const[], char *const[]);
	int (*openat)(int, const char *, int, ...);
	int (*socket)(int, int, int);
	int (*socketpair)(int, int, int, int[2]);
	int (*pipe2)(int[2], int);
	int (*eventfd)(unsigned, int);
	int (*timerfd_create)(clockid_t, int);
	int (*signalfd)(int, const sigset_t *, int);
	int (*memfd_create)(const char *, unsigned);
	int (*inotify_init1)(int);
	int (*mkostemps)(char *, int, int);
	FILE *(*fopen)(const char *, const char *);
	FILE *(*tmpfile)(void);
	DIR *(*opendir)(const char *);
	FILE *(*popen)(const char *, const char *);
	int (*system)(const char *);
	FILE *(*fdopen)(int, const char *);
	FILE *(*freopen)(const char *, const char *, FILE *);
	void (*_exit)(int);
	int (*prlimit)(pid_t, int, const struct rlimit *, struct rlimit *);
	int (*clone)(int (*)(void *), void *, int, void *, ...);
	int (*unshare)(int);
	int (*pthread_setcanceltype)(int, int *);
	long (*syscall)(long, ...);
};

extern struct lf_real lf_real;

/* Looks every name up once. Safe to call again. */
void lf_real_init(void);
/* One more name, for a place that needs it rarely. */
void *lf_real_symbol(const char *name);

#endif
