// SPDX-License-Identifier: GPL-2.0
/*
 * Never loaded: puts every structure that user space shares with the programs into one object's
 * BTF, where the alignment test compares it with its description in lab/layouts.
 */
#define THIS_FILE FILE_BPF_LXC

#include "lib/common.h"
#include "lib/config.h"
#include "lib/conntrack.h"
#include "lib/drop.h"
#include "lib/encap.h"
#include "lib/eps.h"
#include "lib/eth.h"
#include "lib/events.h"
#include "lib/flow.h"
#include "lib/frag.h"
#include "lib/ipcache.h"
#include "lib/lb.h"
#include "lib/metrics.h"
#include "lib/mind.h"
#include "lib/nat.h"
#include "lib/policy.h"
#include "lib/prefilter.h"
#include "lib/signal.h"
#include "lib/trace.h"
#include "lib/unused.h"

/* A type lands in BTF when a global refers to it. A macro for the two names it makes of one. */
#define CHECKED(name) const volatile struct name *checked_##name

CHECKED(endpoint_key);
CHECKED(endpoint_info);
CHECKED(ipcache_key);
CHECKED(remote_endpoint_info);
CHECKED(tunnel_map_key);
CHECKED(tunnel_map_value);
CHECKED(metrics_value);
CHECKED(mac);
CHECKED(policy_key);
CHECKED(policy_entry);
CHECKED(policy_absent);
CHECKED(ipv4_ct_tuple);
CHECKED(ct_entry);
CHECKED(ipv4_nat_entry);
CHECKED(cidr4_key);
CHECKED(lb4_reverse_sk_key);
CHECKED(lb4_reverse_sk);
CHECKED(frag_key);
CHECKED(frag_ports);
CHECKED(lb4_key);
CHECKED(lb4_service);
CHECKED(lb4_backend);
CHECKED(lb4_reverse_nat);
CHECKED(lb4_affinity_key);
CHECKED(lb_affinity_value);
CHECKED(lb_affinity_match);
CHECKED(lb4_src_range_key);
CHECKED(event_header);
CHECKED(drop_record);
CHECKED(trace_notify);
CHECKED(policy_verdict_notify);
CHECKED(signal_record);
CHECKED(mind_note);
CHECKED(mind_record);
