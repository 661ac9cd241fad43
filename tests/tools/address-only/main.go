// Address-only is a CNI plugin that gives a pod an address and no network: the interface it reports is the
// pod's own loopback.
//
// The test cluster's pods so leave no link, route or forwarding rule on the machine, whatever becomes of the
// cluster, and no packet of theirs can leave it. What listens in a pod is reached through kubectl
// port-forward.
package main

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/ipam"
)

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del}, version.All, "gives a pod an address and no network")
}

func add(arguments *skel.CmdArgs) error {
	var network types.NetConf
	if err := json.Unmarshal(arguments.StdinData, &network); err != nil {
		return err
	}
	allocated, err := ipam.ExecAdd(network.IPAM.Type, arguments.StdinData)
	if err != nil {
		return err
	}
	result, err := current.NewResultFromResult(allocated)
	if err != nil {
		return err
	}
	result.Interfaces = []*current.Interface{{Name: arguments.IfName, Sandbox: arguments.Netns}}
	for _, address := range result.IPs {
		address.Interface = current.Int(0)
	}
	return types.PrintResult(result, network.CNIVersion)
}

func del(arguments *skel.CmdArgs) error {
	var network types.NetConf
	if err := json.Unmarshal(arguments.StdinData, &network); err != nil {
		return err
	}
	return ipam.ExecDel(network.IPAM.Type, arguments.StdinData)
}
