package web

import "github.com/prometheus/client_golang/prometheus"

// The metrics that asynqmon's page asks Prometheus for, under the names that it knows: those of asynq's own
// exporter. They repeat stoker_queue_*, by queue instead of by lane.
var (
	descAsynqTasks     = asynqDesc("tasks_enqueued_total", "Tasks of a queue in that state; a gauge, whatever its name says.", "state")
	descAsynqSize      = asynqDesc("queue_size", "Tasks of a queue in all states but completed.")
	descAsynqLatency   = asynqDesc("queue_latency_seconds", "Age of a queue's oldest pending task.")
	descAsynqMemory    = asynqDesc("queue_memory_usage_approx_bytes", "Memory of a queue and its tasks, estimated from a sample.")
	descAsynqProcessed = asynqDesc("tasks_processed_total", "Tries of a queue's tasks, those that failed as well.")
	descAsynqFailed    = asynqDesc("tasks_failed_total", "Tries of a queue's tasks that failed.")
)

var asynqDescs = []*prometheus.Desc{descAsynqTasks, descAsynqSize, descAsynqLatency, descAsynqMemory, descAsynqProcessed, descAsynqFailed}

func asynqDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("asynq_"+name, help, append([]string{"queue"}, labels...), nil)
}

// states are the numbers of tasks in each state.
func (l lane) states() map[string]int {
	return map[string]int{
		"pending": l.Pending, "active": l.Active, "scheduled": l.Scheduled, "retry": l.Retry,
		"archived": l.Archived, "completed": l.Completed,
	}
}

// asynqMetrics are a lane's figures under asynq's names.
func asynqMetrics(l lane) []prometheus.Metric {
	found := []prometheus.Metric{
		gauge(descAsynqSize, float64(l.Size), l.Queue),
		gauge(descAsynqLatency, l.Latency.Seconds(), l.Queue),
		gauge(descAsynqMemory, float64(l.Memory), l.Queue),
		counter(descAsynqProcessed, float64(l.Processed), l.Queue),
		counter(descAsynqFailed, float64(l.Failed), l.Queue),
	}
	for state, n := range l.states() {
		found = append(found, gauge(descAsynqTasks, float64(n), l.Queue, state))
	}
	return found
}
