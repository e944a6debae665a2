package tracing

import (
	"fmt"
	"net/url"
	"slices"

	"github.com/alphanode/stoker/tasks"
)

// The protocols of OTEL_EXPORTER_OTLP_PROTOCOL that there are.
const (
	protocolHTTP = "http/protobuf"
	protocolGRPC = "grpc"
)

// samplers are the values of OTEL_TRACES_SAMPLER.
var samplers = []string{"", "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}

// config is what the standard's variables say.
type config struct {
	on       bool
	protocol string
}

// read reads the variables of the OpenTelemetry specification that say whether and how traces are
// exported; the SDK reads the others. Its error wraps [tasks.ErrInvalid] and names the variable.
func read(getenv func(string) string) (config, error) {
	first := func(names ...string) (name, value string) {
		for _, name = range names {
			if value = getenv(name); value != "" {
				return name, value
			}
		}
		return name, ""
	}
	endpointName, endpoint := first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	if endpoint == "" || getenv("OTEL_SDK_DISABLED") == "true" {
		return config{}, nil
	}
	switch exporter := getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "", "otlp":
	case "none":
		return config{}, nil
	default:
		return config{}, fmt.Errorf("%w: OTEL_TRACES_EXPORTER %q: use otlp or none", tasks.ErrInvalid, exporter)
	}
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		// It is not shown: it may hold a password.
		return config{}, fmt.Errorf("%w: %s is no address: use http://host:4318, or https://", tasks.ErrInvalid, endpointName)
	}
	protocolName, protocol := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	if protocol == "" {
		protocol = protocolHTTP
	}
	if protocol != protocolHTTP && protocol != protocolGRPC {
		return config{}, fmt.Errorf("%w: %s %q: use %s or %s", tasks.ErrInvalid, protocolName, protocol, protocolHTTP, protocolGRPC)
	}
	if s := getenv("OTEL_TRACES_SAMPLER"); !slices.Contains(samplers, s) {
		return config{}, fmt.Errorf("%w: OTEL_TRACES_SAMPLER %q: use one of %q", tasks.ErrInvalid, s, samplers[1:])
	}
	return config{on: true, protocol: protocol}, nil
}
