package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/alphanode/stoker/worker/warm"
)

// object is what the manifests may hold: a field that is not here is misspelt, or has to be added.
type object struct {
	APIVersion string            `yaml:"apiVersion"`
	Kind       string            `yaml:"kind"`
	Metadata   metadata          `yaml:"metadata"`
	Data       map[string]string `yaml:"data"`
	Spec       struct {
		Replicas       int            `yaml:"replicas"`
		Selector       map[string]any `yaml:"selector"`
		Strategy       map[string]any `yaml:"strategy"`
		MinAvailable   int            `yaml:"minAvailable"`
		MaxUnavailable int            `yaml:"maxUnavailable"`
		Ports          []any          `yaml:"ports"`
		PodSelector    labelled       `yaml:"podSelector"`
		PolicyTypes    []string       `yaml:"policyTypes"`
		Ingress        []any          `yaml:"ingress"`
		Template       struct {
			Metadata metadata `yaml:"metadata"`
			Spec     pod      `yaml:"spec"`
		} `yaml:"template"`
	} `yaml:"spec"`
}

type metadata struct {
	Name   string            `yaml:"name"`
	Labels map[string]string `yaml:"labels"`
}

type labelled struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

type pod struct {
	Token      *bool          `yaml:"automountServiceAccountToken"`
	Grace      int            `yaml:"terminationGracePeriodSeconds"`
	Security   map[string]any `yaml:"securityContext"`
	Spread     []any          `yaml:"topologySpreadConstraints"`
	Containers []container    `yaml:"containers"`
	Volumes    []volume       `yaml:"volumes"`
}

type container struct {
	Name    string   `yaml:"name"`
	Image   string   `yaml:"image"`
	Args    []string `yaml:"args"`
	EnvFrom []any    `yaml:"envFrom"`
	Env     []struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	} `yaml:"env"`
	Ports     []any          `yaml:"ports"`
	Live      *probe         `yaml:"livenessProbe"`
	Ready     *probe         `yaml:"readinessProbe"`
	Resources map[string]any `yaml:"resources"`
	Security  struct {
		Escalation   *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnly     bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities struct {
			Drop []string `yaml:"drop"`
		} `yaml:"capabilities"`
	} `yaml:"securityContext"`
	Mounts []struct {
		Name     string `yaml:"name"`
		Path     string `yaml:"mountPath"`
		ReadOnly bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

type probe struct {
	HTTP struct {
		Path string `yaml:"path"`
		Port string `yaml:"port"`
	} `yaml:"httpGet"`
	Period  int `yaml:"periodSeconds"`
	Timeout int `yaml:"timeoutSeconds"`
}

type volume struct {
	Name   string `yaml:"name"`
	Secret *struct {
		Name  string `yaml:"secretName"`
		Mode  int    `yaml:"defaultMode"`
		Items []struct {
			Key  string `yaml:"key"`
			Path string `yaml:"path"`
		} `yaml:"items"`
	} `yaml:"secret"`
	ConfigMap *struct {
		Name string `yaml:"name"`
	} `yaml:"configMap"`
	EmptyDir *struct{} `yaml:"emptyDir"`
}

// kustomized renders the manifests as kubectl apply -k would.
func kustomized(t *testing.T) []object {
	t.Helper()
	for _, path := range glob(t, "kubernetes/*.yaml") {
		read(t, path) // so that the go command knows when the test has to run again
	}
	var cmd *exec.Cmd
	if bin, err := exec.LookPath("kubectl"); err == nil {
		cmd = exec.Command(bin, "kustomize", "kubernetes")
	} else if bin, err := exec.LookPath("kustomize"); err == nil {
		cmd = exec.Command(bin, "build", "kubernetes")
	} else {
		t.Skip("neither kubectl nor kustomize here: the manifests were not rendered")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kustomize: %v\n%s", err, stderr.String())
	}
	dec := yaml.NewDecoder(bytes.NewReader(out), yaml.Strict())
	var all []object
	for {
		var o object
		err := dec.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
}

func TestKubernetes(t *testing.T) {
	known := append(settings(t), "STOKER_REDIS_URL_FILE", "STOKER_CACHE_URL_FILE")
	deployments := map[string]object{}
	all := kustomized(t)
	for _, o := range all {
		for name := range o.Data {
			if strings.HasPrefix(name, "STOKER_") && !slices.Contains(known, name) {
				t.Errorf("%s: no setting is named %s", o.Metadata.Name, name)
			}
		}
		if o.Kind == "Deployment" {
			deployments[o.Metadata.Name] = o
		}
	}
	for _, name := range []string{"worker", "scheduler", "web"} {
		o, ok := deployments["stoker-"+name]
		if !ok {
			t.Errorf("no deployment of %s", name)
			continue
		}
		checkPod(t, name, o.Spec.Template.Spec, known)
		labels := o.Spec.Template.Metadata.Labels
		budget, policy := false, false
		for _, other := range all {
			switch {
			case other.Kind == "PodDisruptionBudget":
				selected, _ := other.Spec.Selector["matchLabels"].(map[string]any)
				budget = budget || selected["app.kubernetes.io/name"] == labels["app.kubernetes.io/name"] && other.Spec.MinAvailable < o.Spec.Replicas
			case other.Kind == "NetworkPolicy" && len(other.Spec.Ingress) == 0:
				policy = policy || within(other.Spec.PodSelector.MatchLabels, labels)
			}
		}
		if !budget || !policy || o.Spec.Replicas < 2 {
			t.Errorf("%s: %d replicas, budget %v, shut off %v", name, o.Spec.Replicas, budget, policy)
		}
	}
	if _, err := warm.ParsePlan([]byte(read(t, "kubernetes/plan.yaml"))); err != nil {
		t.Errorf("kubernetes/plan.yaml: %v", err)
	}
	web := deployments["stoker-web"].Spec.Template.Spec.Containers[0]
	if web.Live == nil || web.Live.HTTP.Path != "/healthz" || web.Ready == nil || web.Ready.HTTP.Path != "/readyz" || web.Live.HTTP.Port != "http" {
		t.Errorf("web's probes: %+v, %+v", web.Live, web.Ready)
	}
	if grace := time.Duration(deployments["stoker-worker"].Spec.Template.Spec.Grace) * time.Second; grace <= gracePeriod(t) {
		t.Errorf("a worker is killed after %v, before its own grace period of %v ends", grace, gracePeriod(t))
	}
}

func within(some, all map[string]string) bool {
	for name, value := range some {
		if all[name] != value {
			return false
		}
	}
	return len(some) > 0
}

// checkPod: it may do no more than it needs, its files are where its settings say, and its secrets are not for
// everybody.
func checkPod(t *testing.T, name string, p pod, known []string) {
	t.Helper()
	c := p.Containers[0]
	if !slices.Equal(c.Args, []string{name}) || !strings.HasSuffix(c.Image, "/stoker:v1") || len(c.Resources) != 2 {
		t.Errorf("%s: runs %s %q with %v", name, c.Image, c.Args, c.Resources)
	}
	if p.Token == nil || *p.Token || p.Security["runAsNonRoot"] != true || p.Security["seccompProfile"] == nil ||
		c.Security.Escalation == nil || *c.Security.Escalation || !c.Security.ReadOnly || !slices.Equal(c.Security.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("%s: may more than it needs: %+v, %+v", name, p.Security, c.Security)
	}
	mounted := map[string]string{} // path of a file or a volume → volume
	for _, m := range c.Mounts {
		mounted[m.Path] = m.Name
	}
	for _, v := range p.Volumes {
		if v.Secret != nil && (v.Secret.Mode != 0o440 || v.Secret.Name != "stoker") {
			t.Errorf("%s: secret %q has mode %04o", name, v.Secret.Name, v.Secret.Mode)
		}
		if v.Secret != nil && name != "web" && len(v.Secret.Items) != 2 {
			t.Errorf("%s: gets secrets that it does not need: %v", name, v.Secret.Items)
		}
		if !slices.Contains(valuesOf(mounted), v.Name) {
			t.Errorf("%s: volume %s is not mounted", name, v.Name)
		}
	}
	for _, e := range c.Env {
		if !slices.Contains(known, e.Name) {
			t.Errorf("%s: no setting is named %s", name, e.Name)
		}
		if dir := e.Value[:max(0, strings.LastIndex(e.Value, "/"))]; strings.HasPrefix(e.Value, "/") && mounted[dir] == "" {
			t.Errorf("%s: %s names %s, and nothing is mounted there", name, e.Name, e.Value)
		}
	}
}

func valuesOf(m map[string]string) []string {
	var all []string
	for _, v := range m {
		all = append(all, v)
	}
	return all
}
