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

/* Kinds of rings that we know how to read (IORING_SETUP_ flags). Two add nothing that matters here but
 * need a name: those that liburing adds by itself, and entries of twice the size. */
#define LF_URING_KNOWN ((1u << 18) - 1) /* all of Linux 6.16 */
#define LF_URING_SQE128 (1u << 10)
#define LF_URING_NO_SQARRAY (1u << 16)

/* The kernel is about to be given this entry, or these files to keep. */
void lf_uring_leave_what_it_names(struct io_uring_sqe *entry);
void lf_uring_leave_files(const int *files, unsigned n);

/* By system calls: a ring was set up; so many entries are about to be handed over; something is about
 * to be registered. What can't be followed ends all fusing in this process. */
void lf_uring_was_set_up(int fd, const struct io_uring_params *params);
void lf_uring_enters(int fd, unsigned n, unsigned flags);
void lf_uring_registers(unsigned opcode, const void *argument, unsigned n);

/* fd, which the table has as a ring, is about to be closed, or was past us. */
void lf_uring_closes(int fd);
/* In a forked child, which shares the rings but has none of our mappings. */
void lf_uring_after_fork(void);

#endif
