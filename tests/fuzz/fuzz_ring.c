/* fuzz_ring.c - a peer that writes anything into the segment between any two calls of the library:
 * receives, sends, readiness, queries and ways out, all of them without waiting. libFuzzer. */
#define _GNU_SOURCE
#include "pair.h"

#include "clock.h"
#include "pairing.h"

static uint8_t *memory;
static int memory_fd;
static struct lf_segment *segment;

static const struct {
	uint16_t at;
	uint8_t wide;
} fields[] = {
	{offsetof(struct lf_producer_line, head), 1},
	{offsetof(struct lf_producer_line, mark), 0},
	{offsetof(struct lf_producer_line, fin_hint), 0},
	{offsetof(struct lf_producer_line, held), 1},
	{offsetof(struct lf_producer_line, end_pos), 1},
	{offsetof(struct lf_producer_line, reason), 0},
	{offsetof(struct lf_producer_line, origin), 1},
	{offsetof(struct lf_direction, t.tail), 1},
	{offsetof(struct lf_direction, c.ready), 0},
	{offsetof(struct lf_direction, c.closed), 0},
	{offsetof(struct lf_direction, c.wish), 0},
	{offsetof(struct lf_direction, c.reason), 0},
	{offsetof(struct lf_direction, c.limit), 0},
	{offsetof(struct lf_direction, reader.armed), 0},
	{offsetof(struct lf_direction, writer.armed), 0},
	{offsetof(struct lf_direction, writer.below), 0},
	{offsetof(struct lf_direction, writer.rung_at), 1},
};
enum { FIELDS = sizeof(fields) / sizeof(*fields) };

static void write_field(struct input *in)
{
	uint8_t which = take8(in), how = take8(in);
	uint8_t *line = (uint8_t *)&segment->dir[which & 1];
	uint8_t *place = line + fields[(which >> 1) % FIELDS].at;
	uint64_t was = 0, value;
	size_t width = fields[(which >> 1) % FIELDS].wide ? 8 : 4;
	memcpy(&was, place, width);
	switch (how % 5) {
	case 0:
		value = how >> 3; /* states */
		break;
	case 1:
		value = was + (uint64_t)(int8_t)take8(in);
		break;
	case 2:
		value = was + (take8(in) & 1 ? RING : (uint64_t)-RING) + (how >> 4);
		break;
	case 3: /* as another one stands */
		value = 0;
		memcpy(&value, line + (how & 8 ? offsetof(struct lf_direction, t.tail) : 0), 8);
		value += take16(in);
		break;
	default:
		value = take_bytes(in, 8);
		break;
	}
	memcpy(place, &value, width);
}

static void scribble(struct input *in)
{
	size_t size = lf_segment_size(RING), at = take16(in) % size, n = take8(in) % 64;
	for (size_t i = 0; i < n && at + i < size; i++)
		memory[at + i] = take8(in);
}

/* Exactly as large as it is said to be, so that AddressSanitizer sees what is written behind. */
static struct lf_io io_of(struct iovec iov[2], struct msghdr *msg, size_t n, int flags)
{
	uint8_t *bytes = malloc(n ? n : 1);
	memset(bytes, 'b', n ? n : 1);
	iov[0] = (struct iovec){bytes, n / 2};
	iov[1] = (struct iovec){bytes + n / 2, n - n / 2};
	*msg = (struct msghdr){.msg_iov = iov, .msg_iovlen = 2};
	return (struct lf_io){.msg = msg, .flags = flags | MSG_DONTWAIT | MSG_NOSIGNAL};
}

static void receive(struct pair *pair, struct input *in)
{
	static const int flags[] = {0, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, MSG_PEEK | MSG_TRUNC,
				    MSG_PEEK | MSG_WAITALL};
	struct iovec iov[2];
	struct msghdr msg;
	size_t n = take16(in) % (2 * RING);
	struct lf_io io = io_of(iov, &msg, n, flags[take8(in) % 6]);
	void *bytes = iov[0].iov_base;
	ssize_t r = lf_conn_recv(pair->sock, pair->server, &io);
	insist(r <= (ssize_t)n || (io.flags & MSG_TRUNC));
	insist(r >= -4095);
	free(bytes);
}

static void transmit(struct pair *pair, struct input *in)
{
	struct iovec iov[2];
	struct msghdr msg;
	size_t n = take16(in) % (2 * RING);
	struct lf_io io = io_of(iov, &msg, n, 0);
	void *bytes = iov[0].iov_base;
	if (!lf_conn_send_quickly(pair->sock, pair->server, bytes, n, io.flags)) {
		ssize_t r = lf_conn_send(pair->sock, pair->server, &io);
		insist(r <= (ssize_t)n && r >= -4095);
	}
	free(bytes);
}

static ssize_t use_pieces(void *context, const struct iovec *pieces, int count, size_t n)
{
	size_t sum = 0;
	for (int i = 0; i < count; i++) {
		uint8_t *copy = malloc(pieces[i].iov_len ? pieces[i].iov_len : 1);
		memcpy(copy, pieces[i].iov_base, pieces[i].iov_len);
		memcpy(pieces[i].iov_base, copy, pieces[i].iov_len);
		free(copy);
		sum += pieces[i].iov_len;
	}
	insist(sum == n && n <= 16384); /* the buffer in which TCP's bytes pass */
	uint8_t used = *(uint8_t *)context;
	return used < n ? used : (ssize_t)n;
}

static void move(struct pair *pair, struct input *in)
{
	uint8_t used = take8(in);
	struct lf_handlers since = lf_handlers_so_far();
	struct lf_bulk bulk = {
		.n = take16(in) + 1u, .move = use_pieces, .context = &used, .since = &since};
	ssize_t r = used & 1 ? lf_conn_recv_into(pair->sock, pair->server, &bulk) :
			       lf_conn_send_from(pair->sock, pair->server, &bulk);
	insist(r <= (ssize_t)bulk.n);
}

static void ask(struct pair *pair, struct input *in)
{
	short known;
	struct lf_sock *sock = pair->sock;
	size_t need = take16(in);
	insist(lf_conn_unread(sock) <= RING && lf_conn_unsent(sock) <= RING);
	(void)lf_conn_ready(sock, -1, &known);
	if (!lf_sock_paired(sock))
		return;
	(void)lf_conn_has_input(sock, need);
	(void)lf_conn_readable(sock, need);
	(void)lf_conn_writable(sock);
	(void)lf_conn_writer_has_to_wait(sock);
	(void)lf_conn_ring_sent(sock);
	(void)lf_conn_ring_received(sock);
	lf_conn_limits_changed(sock);
	lf_conn_resolve_fin(sock, pair->server);
	lf_conn_look_at_reader(sock, pair->server);
	lf_conn_check_peer(sock, pair->server);
	lf_conn_check_tcp(sock, pair->server);
}

static void leave(struct pair *pair, struct input *in)
{
	uint8_t how = take8(in);
	switch (how % 6) {
	case 0:
		lf_conn_shutdown(pair->sock, pair->server, how / 6 % 3);
		break;
	case 1:
		lf_conn_defuse_until(pair->sock, pair->server, LF_REASON_EXEC, how / 6 % 2, lf_now());
		break;
	case 2:
		lf_conn_return_to_tcp(pair->sock, LF_REASON_STDIO);
		break;
	case 3:
		(void)lf_conn_give_up_bell(pair->sock);
		break;
	default:
		lf_conn_service(pair->sock, pair->server);
		break;
	}
}

static void be_the_peer(struct pair *pair, int *bell, struct input *in)
{
	static const uint8_t bytes[2048];
	uint8_t how = take8(in);
	switch (how % 8) {
	case 0:
	case 1:
		(void)!send(*bell, bytes, how, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 2:
		if (*bell >= 0)
			close(*bell);
		*bell = -1;
		break;
	case 3:
		shutdown(pair->peer, how & 64 ? SHUT_WR : SHUT_RDWR);
		break;
	case 4: {
		struct linger now = {1, 0};
		setsockopt(pair->peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		if (pair->peer >= 0)
			close(pair->peer);
		pair->peer = -1;
		break;
	}
	default:
		(void)!send(pair->peer, bytes, how, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	}
}

/* Both directions in the ring, as an honest peer would have it. */
static void be_honest(struct pair *pair)
{
	segment->dir[0].arrivals.tcp_total = 0;
	segment->dir[0].p.mark = LF_MARK_FUSED;
	segment->dir[1].c.ready = 1;
	(void)pair;
}

static void once(void)
{
	signal(SIGPIPE, SIG_IGN);
	wait_for_nothing();
	memory_fd = sealed_memory(lf_segment_size(RING), SEALS);
	memory = mapped(memory_fd, lf_segment_size(RING));
	segment = lf_segment_at(memory, RING);
}

static void drain(int fd)
{
	uint8_t bytes[65536];
	while (fd >= 0 && recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	int bells[2];
	if (!memory)
		once();
	memset(memory, 0, lf_segment_size(RING));
	name_segment(segment, 1);
	struct pair pair = connected();
	insist(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, bells) == 0);
	struct lf_wire_fuse fuse = {.pair_id = 1, .side = 1, .ring_size = RING};
	enum lf_reason reason;
	insist(lf_conn_pair(pair.sock, &fuse, dup(memory_fd), bells[0], &reason));
	if (take8(&in) % 4)
		be_honest(&pair);
	for (int steps = 0; in.left && steps < 64; steps++) {
		switch (take8(&in) % 16) {
		case 0:
		case 1:
		case 2:
		case 3:
		case 4:
			write_field(&in);
			break;
		case 5:
			scribble(&in);
			break;
		case 6:
		case 7:
		case 8:
			receive(&pair, &in);
			break;
		case 9:
		case 10:
			transmit(&pair, &in);
			break;
		case 11:
			move(&pair, &in);
			break;
		case 12:
			ask(&pair, &in);
			break;
		case 13:
			leave(&pair, &in);
			break;
		default:
			be_the_peer(&pair, &bells[1], &in);
			break;
		}
		drain(pair.peer); /* it reads TCP: bytes that are sent again there find room */
	}
	disconnected(&pair);
	if (bells[1] >= 0)
		close(bells[1]);
	insist(lf_table_hidden() == 0);
	return 0;
}
