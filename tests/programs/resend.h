/* resend.h - how a test has unread bytes of the ring sent again by TCP, at once or with a wait. */
#ifndef RESEND_H
#define RESEND_H

#include "two_ends.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

/* Standard input is read past the library, so what lies in the ring is sent again for it. */
static inline void want_all_by_tcp(int fd)
{
	int nothing = open("/dev/null", O_RDONLY);
	dup2(fd, STDIN_FILENO);
	dup2(nothing, STDIN_FILENO);
	close(nothing);
}

/* From here on this process can't have a larger send buffer, as if net.core.wmem_max were
 * small and it had no privileges: what is sent again waits for the peer to read. */
static inline void keep_send_buffers_small(void)
{
	enum { OPTION = offsetof(struct seccomp_data, args[2]) };
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setsockopt, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, OPTION),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SO_SNDBUF, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SO_SNDBUFFORCE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		abort();
}

#endif
