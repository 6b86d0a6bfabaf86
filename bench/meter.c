/* meter.c - see meter.h. */
#define _GNU_SOURCE
#include "meter.h"

#include "../csrc/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The number behind `name` in a file of /proc; `pid` 0 is ourselves. */
static long read_field(pid_t pid, const char *file, const char *name)
{
	char path[64], line[256];
	if (pid)
		snprintf(path, sizeof(path), "/proc/%ld/%s", (long)pid, file);
	else
		snprintf(path, sizeof(path), "/proc/self/%s", file);
	FILE *stream = fopen(path, "re");
	long value = 0;
	while (stream && fgets(line, sizeof(line), stream))
		if (strncmp(line, name, strlen(name)) == 0)
			value = atol(line + strlen(name));
	if (stream)
		fclose(stream);
	return value;
}

static double cpu_seconds(clockid_t clock)
{
	struct timespec ts = {0};
	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Adds what the clocks and counters say now, times `sign`. */
static void add(struct meter *meter, int sign)
{
	static const char name[] = "voluntary_ctxt_switches:";
	pid_t peer = meter->order->peer;
	meter->sleeps += sign * read_field(0, "status", name);
	if (peer) {
		meter->sleeps += sign * read_field(peer, "status", name);
		meter->cpu[1] += sign * cpu_seconds(meter->peer);
	}
	meter->cpu[0] += sign * cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
}

void meter_start(struct meter *meter, const struct measure_order *order)
{
	*meter = (struct meter){.order = order};
	if (order->peer && clock_getcpuclockid(order->peer, &meter->peer))
		measure_wrong("the server's CPU time can't be read: is it gone?");
	add(meter, -1);
	meter->start = lf_now();
}

void meter_stop(struct meter *meter)
{
	meter->end = lf_now();
	add(meter, 1);
}

bool meter_over(const struct meter *meter, int64_t now)
{
	return (double)(now - meter->start) >= meter->order->seconds * 1e9;
}

void meter_print(const struct meter *meter, uint64_t units, uint64_t bytes,
		 const struct histogram *latencies)
{
	/* Pss counts a page that both map once in all. */
	long memory = read_field(0, "smaps_rollup", "Pss:");
	if (meter->order->peer)
		memory += read_field(meter->order->peer, "smaps_rollup", "Pss:");
	printf("{\"units\": %llu, \"bytes\": %llu, \"start\": %.9f, \"seconds\": %.9f, "
	       "\"client_cpu\": %.9f, "
	       "\"server_cpu\": %.9f, \"sleeps\": %ld, \"memory_kb\": %ld, \"latency_ns\": ",
	       (unsigned long long)units, (unsigned long long)bytes,
	       (double)meter->start / 1e9, (double)(meter->end - meter->start) / 1e9, meter->cpu[0], meter->cpu[1],
	       meter->sleeps, memory);
	if (latencies)
		histogram_print(latencies);
	else
		printf("null");
	puts("}");
}
