/* fuzz_broker.c - a broker that says anything, with any descriptors beside it. libFuzzer.
 *
 * It includes the parser's own file, to be at the other end of its connection. */
#include "broker.c"

#include "pair.h"

#include "capture.h"

static int segments[3]; /* as it should be; not sealed; too short */
static int boxes[2];    /* mailboxes: as it should be, not sealed */
static int captures[2]; /* capture rings, likewise */
static const size_t capture_size =
	LF_CAPTURE_HEADER + LF_CAPTURE_CELLS_MIN * (8 + (size_t)LF_CAPTURE_CELL);

static void name_capture(void)
{
	struct lf_capture *capture = mapped(captures[0], capture_size);
	memset(capture, 0, LF_CAPTURE_HEADER);
	capture->magic = LF_CAPTURE_MAGIC;
	capture->version = LF_CAPTURE_VERSION;
	capture->cells = LF_CAPTURE_CELLS_MIN;
	capture->snap = LF_CAPTURE_MOST;
	munmap(capture, capture_size);
}

static void once(void)
{
	signal(SIGPIPE, SIG_IGN);
	wait_for_nothing();
	size_t size = lf_segment_size(RING);
	segments[0] = sealed_memory(size, SEALS);
	segments[1] = sealed_memory(size, F_SEAL_GROW);
	segments[2] = sealed_memory(size - 4096, SEALS);
	boxes[0] = sealed_memory(MAILBOX, SEALS);
	boxes[1] = sealed_memory(MAILBOX, F_SEAL_GROW);
	captures[0] = sealed_memory(capture_size, SEALS);
	captures[1] = sealed_memory(capture_size, F_SEAL_SHRINK);
}

/* A descriptor to send along; the caller closes it. */
static int some_descriptor(uint8_t which)
{
	int ends[2];
	switch (which % 12) {
	case 0:
	case 1:
	case 2:
		return dup(segments[which % 12]);
	case 3:
	case 4:
		return dup(boxes[which % 12 - 3]);
	case 5:
	case 6:
		return dup(captures[which % 12 - 5]);
	case 7:
		insist(pipe(ends) == 0);
		break;
	case 8:
		return open("/dev/zero", O_RDWR | O_CLOEXEC);
	default:
		insist(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
		break;
	}
	close(ends[1]);
	return ends[0];
}

/* As it should be, but for what the input says otherwise. */
static size_t compose(struct input *in, struct packet *packet, const struct pair *pair)
{
	static const size_t sizes[] = {[LF_WIRE_WELCOME] = sizeof(struct lf_wire_welcome),
				       [LF_WIRE_FUSE] = sizeof(struct lf_wire_fuse),
				       [LF_WIRE_REFUSE] = sizeof(struct lf_wire_refuse),
				       [LF_WIRE_TAP] = sizeof(struct lf_wire_tap)};
	uint8_t type = take8(in), damage = take8(in);
	memset(&packet->u, 0, sizeof(packet->u));
	packet->u.head = (struct lf_wire_head){LF_WIRE_MAGIC, LF_WIRE_VERSION, type};
	switch (type) {
	case LF_WIRE_WELCOME:
		packet->u.welcome.mailbox_size = MAILBOX;
		break;
	case LF_WIRE_FUSE:
		packet->u.fuse.claim_id = lf_sock_id(pair->sock);
		packet->u.fuse.pair_id = 1;
		packet->u.fuse.side = take8(in) % 3;
		packet->u.fuse.ring_size = RING;
		packet->u.fuse.limit_out = (uint32_t)take_bytes(in, 3);
		break;
	case LF_WIRE_REFUSE:
		packet->u.refuse.claim_id = lf_sock_id(pair->sock);
		packet->u.refuse.reason = take8(in);
		break;
	case LF_WIRE_TAP:
		packet->u.tap.slot = take8(in) % (LF_SEGMENT_TAPS + 1);
		packet->u.tap.cells = LF_CAPTURE_CELLS_MIN;
		break;
	default:
		break;
	}
	size_t size = type < sizeof(sizes) / sizeof(*sizes) && sizes[type] ? sizes[type] : 16;
	for (; damage & 3; damage >>= 2)
		packet->u.bytes[take8(in) % sizeof(packet->u.bytes)] = (char)take8(in);
	return damage & 1 ? take8(in) % (sizeof(packet->u.bytes) + 1) : size;
}

static void say(int fd, struct input *in, const struct pair *pair)
{
	union {
		char bytes[CMSG_SPACE(6 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct packet packet;
	struct iovec iov = {packet.u.bytes, compose(in, &packet, pair)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	uint8_t count = take8(in) % 7;
	int fds[6];
	for (int i = 0; i < count; i++)
		insist((fds[i] = some_descriptor(take8(in))) >= 0);
	if (count) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		*c = (struct cmsghdr){CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	(void)!sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (count)
		close(fds[--count]);
}

/* What was handed out is used: a send that is tapped, a receive. */
static void use(const struct pair *pair)
{
	char bytes[100] = "payload";
	struct iovec iov = {bytes, sizeof(bytes)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct lf_io io = {.msg = &msg, .flags = MSG_DONTWAIT | MSG_NOSIGNAL};
	if (lf_sock_paired(pair->sock)) {
		atomic_store(&pair->sock->segment->broker_wish, 0xffu << 16);
		atomic_store(&pair->sock->out->c.ready, 1);
	}
	(void)lf_conn_send(pair->sock, pair->server, &io);
	(void)lf_conn_recv(pair->sock, pair->server, &io);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	int ends[2];
	if (!captures[1])
		once();
	void *memory = mapped(segments[0], lf_segment_size(RING));
	struct lf_segment *segment = lf_segment_at(memory, RING);
	memset(segment, 0, sizeof(*segment));
	name_segment(segment, 1);
	name_capture();
	(void)next_descriptor();
	struct pair pair = connected();
	int before = next_descriptor();
	insist(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	atomic_store(&connection, lf_table_hide(ends[0]));
	for (int packets = 0; in.left && packets < 8; packets++) {
		say(ends[1], &in, &pair);
		lf_broker_receive();
		(void)lf_broker_has_mail();
		use(&pair);
	}
	(void)lf_broker_leave();
	close(ends[1]);
	/* Capture rings are let go of once they are closed. */
	struct lf_capture *capture = mapped(captures[0], capture_size);
	atomic_store(&capture->closed, 1);
	munmap(capture, capture_size);
	lf_tap_tidy();
	insist(next_descriptor() == before);
	disconnected(&pair);
	munmap(memory, lf_segment_size(RING));
	insist(lf_table_hidden() == 0);
	return 0;
}
