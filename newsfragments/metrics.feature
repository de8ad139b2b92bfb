The option metrics: numbers for Prometheus at /metrics, requests by action with a histogram of how long they took,
checks by code, backends, name servers and DNS lists, and what waits; /healthz and /readyz for load balancers. They are
on a port of this host or a UNIX socket, and off unless set. A dashboard for Grafana and alerts that say what to do are in
contrib/, and docs/metrics.md explains all of it.
