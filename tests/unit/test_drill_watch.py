"""What front doors tell of their regions, read from Envoy's own words."""

from operations.drills.watch import read

HOST = "drill.fleet.internal"
PORTS = {20001: "us-east", 20002: "us-west"}


def endpoint(port: int, sent: int, **flags: object) -> dict[str, object]:
    return {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        # Envoy leaves out a counter's value where it is 0.
        "stats": [{"name": "cx_total", "value": "3"}, {"name": "rq_total", "value": str(sent)} if sent else {"name": "rq_total"}],
        "health_status": {"eds_health_status": "HEALTHY", **flags},
    }


def test_requests_and_flags_are_told_by_region() -> None:
    told = {
        "cluster_statuses": [
            {"name": f"outbound|80||{HOST}", "host_statuses": [endpoint(20001, 12, failed_active_health_check=True), endpoint(20002, 0)]},
            {"name": "outbound|80||other.fleet.internal", "host_statuses": [endpoint(20001, 99)]},
            {"name": "istiod"},
        ]
    }
    assert read(told, HOST, PORTS) == ({"us-east": 12, "us-west": 0}, {"us-east": ["failed_active_health_check"]})


def test_an_endpoint_of_nobody_is_passed_over() -> None:
    told = {"cluster_statuses": [{"name": f"outbound|80||{HOST}", "host_statuses": [endpoint(29999, 1), {"address": {"pipe": {"path": "x"}}}]}]}
    assert read(told, HOST, PORTS) == ({}, {})
