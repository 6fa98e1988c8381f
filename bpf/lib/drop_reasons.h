/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Why a packet was dropped. The numbers are Cilium's (`cilium monitor`, Hubble) and continue where
 * the TC verdicts end, so that one negative int can carry either. User space reads names and
 * numbers from BTF: this enum is the only list. The text after a name is what the tools print.
 */
#pragma once

enum drop_reason {
	DROP_UNUSED1 = -130, /* Invalid source mac */
	DROP_UNUSED2 = -131, /* Invalid destination mac */
	DROP_INVALID_SIP = -132, /* Invalid source ip */
	DROP_POLICY = -133, /* Policy denied */
	DROP_INVALID = -134, /* Invalid packet */
	DROP_CT_INVALID_HDR = -135, /* CT: Truncated or invalid header */
	DROP_FRAG_NEEDED = -136, /* Fragmentation needed */
	DROP_CT_UNKNOWN_PROTO = -137, /* CT: Unknown L4 protocol */
	DROP_UNUSED4 = -138, /* CT: Can't create entry from packet */
	DROP_UNKNOWN_L3 = -139, /* Unsupported L3 protocol */
	DROP_MISSED_TAIL_CALL = -140, /* Missed tail call */
	DROP_WRITE_ERROR = -141, /* Error writing to packet */
	DROP_UNKNOWN_L4 = -142, /* Unknown L4 protocol */
	DROP_UNKNOWN_ICMP4_CODE = -143, /* Unknown ICMPv4 code */
	DROP_UNKNOWN_ICMP4_TYPE = -144, /* Unknown ICMPv4 type */
	DROP_UNKNOWN_ICMP6_CODE = -145, /* Unknown ICMPv6 code */
	DROP_UNKNOWN_ICMP6_TYPE = -146, /* Unknown ICMPv6 type */
	DROP_NO_TUNNEL_KEY = -147, /* Error retrieving tunnel key */
	DROP_UNUSED5 = -148, /* Error retrieving tunnel options */
	DROP_UNUSED6 = -149, /* Invalid Geneve option */
	DROP_UNKNOWN_TARGET = -150, /* Unknown L3 target address */
	DROP_UNROUTABLE = -151, /* Stale or unroutable IP */
	DROP_UNUSED7 = -152, /* No matching local container found */
	DROP_CSUM_L3 = -153, /* Error while correcting L3 checksum */
	DROP_CSUM_L4 = -154, /* Error while correcting L4 checksum */
	DROP_CT_CREATE_FAILED = -155, /* CT: Map insertion failed */
	DROP_INVALID_EXTHDR = -156, /* Invalid IPv6 extension header */
	DROP_FRAG_NOSUPPORT = -157, /* IP fragmentation not supported */
	DROP_NO_SERVICE = -158, /* Service backend not found */
	DROP_UNSUPP_SERVICE_PROTO = -159, /* (internal) */
	DROP_NO_TUNNEL_ENDPOINT = -160, /* No tunnel/encapsulation endpoint (datapath BUG!) */
	DROP_NAT_46X64_DISABLED = -161, /* NAT 46/64 not enabled */
	DROP_EDT_HORIZON = -162, /* Reached EDT rate-limiting drop horizon */
	DROP_UNKNOWN_CT = -163, /* Unknown connection tracking state */
	DROP_HOST_UNREACHABLE = -164, /* Local host is unreachable */
	DROP_NO_CONFIG = -165, /* No configuration available to perform policy decision */
	DROP_UNSUPPORTED_L2 = -166, /* Unsupported L2 protocol */
	DROP_NAT_NO_MAPPING = -167, /* No mapping for NAT masquerade */
	DROP_NAT_UNSUPP_PROTO = -168, /* Unsupported protocol for NAT masquerade */
	DROP_NO_FIB = -169, /* FIB lookup failed */
	DROP_ENCAP_PROHIBITED = -170, /* Encapsulation traffic is prohibited */
	DROP_INVALID_IDENTITY = -171, /* Invalid identity */
	DROP_UNKNOWN_SENDER = -172, /* Unknown sender */
	DROP_NAT_NOT_NEEDED = -173, /* NAT not needed */
	DROP_IS_CLUSTER_IP = -174, /* Is a ClusterIP */
	DROP_FRAG_NOT_FOUND = -175, /* First logical datagram fragment not found */
	DROP_FORBIDDEN_ICMP6 = -176, /* Forbidden ICMPv6 message */
	DROP_NOT_IN_SRC_RANGE = -177, /* Denied by LB src range check */
	DROP_PROXY_LOOKUP_FAILED = -178, /* Socket lookup failed */
	DROP_PROXY_SET_FAILED = -179, /* Socket assign failed */
	DROP_PROXY_UNKNOWN_PROTO = -180, /* Proxy redirection not supported for protocol */
	DROP_POLICY_DENY = -181, /* Policy denied by denylist */
	DROP_VLAN_FILTERED = -182, /* VLAN traffic disallowed by VLAN filter */
	DROP_INVALID_VNI = -183, /* Incorrect VNI from VTEP */
	DROP_INVALID_TC_BUFFER = -184, /* Failed to update or lookup TC buffer */
	DROP_NO_SID = -185, /* No SID was found for the IP address */
	DROP_MISSING_SRV6_STATE = -186, /* SRv6 state was removed during tail call */
	DROP_NAT46 = -187, /* L3 translation from IPv4 to IPv6 failed (NAT46) */
	DROP_NAT64 = -188, /* L3 translation from IPv6 to IPv4 failed (NAT64) */
	DROP_POLICY_AUTH_REQUIRED = -189, /* Authentication required */
	DROP_CT_NO_MAP_FOUND = -190, /* No conntrack map found */
	DROP_SNAT_NO_MAP_FOUND = -191, /* No nat map found */
	DROP_INVALID_CLUSTER_ID = -192, /* Invalid ClusterID */
	DROP_DSR_ENCAP_UNSUPP_PROTO = -193, /* Unsupported packet protocol for DSR encapsulation */
	DROP_NO_EGRESS_GATEWAY = -194, /* No egress gateway found */
	DROP_UNENCRYPTED_TRAFFIC = -195, /* Traffic is unencrypted */
	DROP_TTL_EXCEEDED = -196, /* TTL exceeded */
	DROP_NO_NODE_ID = -197, /* No node ID found */
	DROP_RATE_LIMITED = -198, /* Rate limited */
	DROP_IGMP_HANDLED = -199, /* IGMP handled */
	DROP_IGMP_SUBSCRIBED = -200, /* IGMP subscribed */
	DROP_MULTICAST_HANDLED = -201, /* Multicast handled */
	DROP_HOST_NOT_READY = -202, /* Host datapath not ready */
	DROP_EP_NOT_READY = -203, /* Endpoint policy program not available */
	DROP_NO_EGRESS_IP = -204, /* No Egress IP configured */
	DROP_PUNT_PROXY = -205, /* Punt to proxy */
};

/* Counted like drops, in cilium_metrics, but the packet goes on. */
enum metric_reason {
	REASON_FORWARDED = 0,
	REASON_PLAINTEXT = 3,
	REASON_DECRYPT = 4,
	REASON_LB_NO_BACKEND_SLOT = 5,
	REASON_LB_NO_BACKEND = 6,
	REASON_FRAG_PACKET = 9,
	REASON_FRAG_PACKET_UPDATE = 10,
	REASON_MISSED_CUSTOM_CALL = 11,
};

/* Anchors: a type lands in BTF when a global refers to it. */
const volatile enum drop_reason btf_drop_reason = DROP_POLICY;
const volatile enum metric_reason btf_metric_reason = REASON_FORWARDED;
