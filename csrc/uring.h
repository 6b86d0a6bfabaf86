/* uring.h - what a program asks its io_urings for.
 *
 * The kernel takes requests (entries) out of memory that it shares with the program. Sockets that are
 * named there go back to TCP before that: the kernel would wait for bytes of theirs, or move them, past
 * the ring of ours. An entry that only adds a socket to an epoll set, as libuv has them, is done by us.
 *
 * Who looks: the shared liburing's names, which say where the entries lie; and syscall(), for a ring
 * that was set up by it. Of such a ring we map the entries ourselves. That mapping alone would keep the
 * ring alive, so it goes when the program closes the ring.
 */
#ifndef LF_URING_H
#define LF_URING_H

#include <linux/io_uring.h>
#include <stdbool.h>

/* Kinds of rings that we know how to read (IORING_SETUP_ flags). Two add nothing that matters here but
 * need a name: those that liburing adds by itself, and entries of twice the size. */
#define LF_URING_KNOWN ((1u << 18) - 1) /* all of Linux 6.16 */
#define LF_URING_SQE128 (1u << 10)
#define LF_URING_NO_SQARRAY (1u << 16)

/* The kernel is about to be given this entry, or these files to keep. `linked`: of one batch, from
 * entry to entry; false before the first. */
void lf_uring_look(struct io_uring_sqe *entry, bool *linked);
void lf_uring_leave_files(const int *files, unsigned n);

/* By system calls: a ring was set up; something is about to be registered. What can't be followed ends
 * all fusing in this process. */
void lf_uring_was_set_up(int fd, const struct io_uring_params *params);
void lf_uring_registers(int fd, unsigned opcode, const void *argument, unsigned n);
/* Around the call that hands so many entries over. */
struct lf_uring_entered {
	struct ring *ring;
};
struct lf_uring_entered lf_uring_enter(int fd, unsigned n, unsigned flags);
void lf_uring_entered(struct lf_uring_entered entered);

/* fd is about to be closed, or was past us; if the table has it as a ring. */
void lf_uring_closes(int fd);
void lf_uring_closes_all(unsigned first, unsigned last);
/* In a forked child, which shares the rings but has none of our mappings. */
void lf_uring_after_fork(void);

#endif
