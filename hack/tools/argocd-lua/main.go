// Command argocd-lua runs Argo CD's own code over objects: what its health checks, actions and comparison make of them.
//
// The settings are read from an argocd-cm as Argo CD reads them. Each line of standard input is a JSON document, and each
// gets one line of JSON in return:
//
//	argocd-lua argocd-cm.yaml health    object                                   -> {"status", "message"}
//	argocd-lua argocd-cm.yaml actions   object                                   -> {action: object after it, or null if disabled}
//	argocd-lua argocd-cm.yaml diff      {"target": as in Git, "live": as it is}  -> {"modified", "predicted", "live"}
//
// With the API server's /openapi/v2 as a third argument, diff compares as Argo CD does for ServerSideApply=true.
//
// The exit code is 0 when every line got its answer, 1 otherwise, 2 for a usage error.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/kube-openapi/pkg/util/proto"
	"sigs.k8s.io/yaml"

	"github.com/argoproj/argo-cd/v3/common"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/argo/diff"
	"github.com/argoproj/argo-cd/v3/util/argo/normalizers"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
)

const usage = "usage: argocd-lua ARGOCD-CM.yaml health|actions|diff [OPENAPI.json] < lines of JSON"

func main() {
	logrus.SetOutput(io.Discard)
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// serverSide has the schemas for comparing as server-side apply does, nil for comparing as client-side apply does.
var serverSide *managedfields.GvkParser

type overrides map[string]v1alpha1.ResourceOverride

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	answers := map[string]func(overrides, []byte) (any, error){"health": health, "actions": actions, "diff": difference}
	if len(args) == 3 && args[1] == "diff" {
		parser, err := schemas(args[2])
		if err != nil {
			fmt.Fprintf(stderr, "%s: %v\n", args[2], err)
			return 2
		}
		serverSide, args = parser, args[:2]
	}
	if len(args) != 2 || answers[args[1]] == nil {
		fmt.Fprintln(stderr, usage)
		return 2
	}
	configured, err := read(args[0])
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", args[0], err)
		return 2
	}
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, 16<<20)
	out := json.NewEncoder(stdout)
	for number := 1; lines.Scan(); number++ {
		answer, err := answers[args[1]](configured, lines.Bytes())
		if err == nil {
			err = out.Encode(answer)
		}
		if err != nil {
			fmt.Fprintf(stderr, "line %d: %v\n", number, err)
			return 1
		}
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// read returns what an argocd-cm says about resources, in Argo CD's own reading.
func read(path string) (overrides, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var config corev1.ConfigMap
	if err := yaml.UnmarshalStrict(content, &config); err != nil {
		return nil, err
	}
	config.Name, config.Namespace = common.ArgoCDConfigMapName, "argocd"
	config.Labels = map[string]string{"app.kubernetes.io/part-of": "argocd"}
	secret := corev1.Secret{Data: map[string][]byte{"admin.password": nil, "server.secretkey": nil}}
	secret.Name, secret.Namespace, secret.Labels = common.ArgoCDSecretName, "argocd", config.Labels
	manager := settings.NewSettingsManager(context.Background(), fake.NewClientset(&config, &secret), "argocd")
	return manager.GetResourceOverrides()
}

func health(configured overrides, line []byte) (any, error) {
	object, err := parse(line)
	if err != nil {
		return nil, err
	}
	return lua.ResourceHealthOverrides(configured).GetResourceHealth(object)
}

func actions(configured overrides, line []byte) (any, error) {
	object, err := parse(line)
	if err != nil {
		return nil, err
	}
	vm := lua.VM{ResourceOverrides: configured}
	scripts, err := vm.GetResourceActionDiscovery(object)
	if err != nil {
		return nil, err
	}
	found := map[string]any{}
	if len(scripts) == 0 {
		return found, nil
	}
	discovered, err := vm.ExecuteResourceActionDiscovery(object, scripts)
	if err != nil {
		return nil, err
	}
	for _, one := range discovered {
		found[one.Name] = nil
		if one.Disabled {
			continue
		}
		definition, err := vm.GetResourceAction(object, one.Name)
		if err != nil {
			return nil, err
		}
		impacted, err := vm.ExecuteResourceAction(object.DeepCopy(), definition.ActionLua, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.Name, err)
		}
		if len(impacted) != 1 {
			return nil, fmt.Errorf("%s: %d objects", one.Name, len(impacted))
		}
		found[one.Name] = impacted[0].UnstructuredObj.Object
	}
	return found, nil
}

func difference(configured overrides, line []byte) (any, error) {
	var asked struct{ Target, Live map[string]any }
	if err := json.Unmarshal(line, &asked); err != nil {
		return nil, err
	}
	builder := diff.NewDiffConfigBuilder().
		WithDiffSettings(nil, configured, false, normalizers.IgnoreNormalizerOpts{}).
		WithTracking(common.LabelKeyAppInstance, string(v1alpha1.TrackingMethodAnnotation)).
		WithNoCache()
	if serverSide != nil {
		builder = builder.WithStructuredMergeDiff(true).WithGVKParser(serverSide).WithManager(common.ArgoCDSSAManager)
	}
	config, err := builder.Build()
	if err != nil {
		return nil, err
	}
	found, err := diff.StateDiff(&unstructured.Unstructured{Object: asked.Live}, &unstructured.Unstructured{Object: asked.Target}, config)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"modified":  found.Modified,
		"predicted": json.RawMessage(found.PredictedLive),
		"live":      json.RawMessage(found.NormalizedLive),
	}, nil
}

func schemas(path string) (*managedfields.GvkParser, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	document, err := openapi_v2.ParseDocument(content)
	if err != nil {
		return nil, err
	}
	models, err := proto.NewOpenAPIData(document)
	if err != nil {
		return nil, err
	}
	return managedfields.NewGVKParser(models, false)
}

func parse(line []byte) (*unstructured.Unstructured, error) {
	object := &unstructured.Unstructured{}
	return object, object.UnmarshalJSON(line)
}
