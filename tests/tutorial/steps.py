"""What a person does at each command of docs/tutorial.md, and what the page lets them expect of it."""

from dataclasses import dataclass

CTRL_C, CTRL_BRACKET = "\x03", "\x1d"
ALL_FIVE_RUN = r"(?s)\A" + "".join(rf"(?=.*^web-{n} +\S+ +Running)" for n in range(5))
BOOT = 300.0
"""Seconds that a guest may take to boot on a machine without KVM."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """`command` matches the beginning of a command of the page; the first step that does counts.

    `acts`: what is waited for, and what is typed then, before the prompt comes back. `inside`: the command leaves no
    prompt, or is typed where there is none: in a guest. `editor` is the program that $EDITOR names.
    """

    command: str
    shows: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    acts: tuple[tuple[str, str], ...] = ()
    inside: bool = False
    editor: str = ""
    codes: tuple[int, ...] = (0,)
    patience: float = 120.0


STEPS = (
    # 1. Set up
    Step(command=r"apt-get install -y ", patience=900),
    Step(command=r"scripts/setup --kubectl$", patience=1800),
    Step(command=r"export PATH="),
    # 2. Start a home
    Step(command=r"hotvirt up --detach$", shows=(r"API answers at https://127\.0\.0\.1:", r"context is hotvirt")),
    Step(command=r"kubectl get nodes$", shows=(r"^\S+ +Ready ",)),
    Step(command=r"hotvirt status$", shows=(r"acceleration: (KVM|software emulation): \w+", r"Home +https://")),
    # 3. Make a VM
    Step(command=r"kubectl apply -f examples/vm.yaml$", shows=(r"virtualmachine.kubevirt.io/web created",)),
    Step(command=r"kubectl get vm,vmi,pods$", shows=(r"virtualmachine.kubevirt.io/web ",), patience=30),
    Step(command=r"kubectl wait vm/(web|box) --for=condition=AgentConnected", shows=(r"condition met",), patience=BOOT),
    Step(command=r"hotvirt guest vm/(web|box)$", shows=(r"(?i)memory", r"(?i)cpu", r"(?i)up for")),
    # 4. Look inside
    Step(command=r"hotvirt console vm/web$", acts=((r"Press Ctrl", "\n"), (r"# ", "")),
         inside=True, patience=BOOT),
    Step(command=r"mkdir /www; ", acts=((r"# ", CTRL_BRACKET),)),
    # 5. Memory
    Step(command=r"kubectl edit vm web$", shows=(r"virtualmachine.kubevirt.io/web edited",),
         editor="#!/bin/sh\nexec sed -i 's/guest: 1Gi/guest: 2Gi/' \"$1\"\n"),
    Step(command=r"hotvirt set vm/web ", patience=BOOT),
    # 6. CPUs and a disk
    Step(command=r"kubectl apply -f examples/claim.yaml$", shows=(r"persistentvolumeclaim/data created",)),
    Step(command=r"hotvirt addvolume web --volume-name=data", shows=(r"Successfully submitted add volume request",)),
    Step(command=r"hotvirt removevolume web ", shows=(r"Successfully submitted remove volume request",)),
    # 8. Expose it
    Step(command=r"hotvirt expose vm web ", shows=(r"Service web successfully created for (vm|VirtualMachine) web",)),
    Step(command=r"kubectl get service,endpoints web$", shows=(r"service/web +ClusterIP", r"endpoints/web +\d+\.")),
    Step(command=r"hotvirt port-forward vm/web 8080 &$", acts=((r"Forwarding tcp .*8080", "\n"),)),
    Step(command=r"curl ", shows=(r"hello from \w+",)),
    Step(command=r"kill %1$"),
    # 9. A Debian
    Step(command=r"hotvirt images build hotvirt/debian:12$", shows=(r"hotvirt/debian:12 is in /",), patience=1800),
    Step(command=r"ssh-keygen", acts=((r"Enter file", "\n"), (r"passphrase", "\n"), (r"again", "\n"))),
    Step(command=r"hotvirt create vm --name=box ", shows=(r"virtualmachine.kubevirt.io/box created",)),
    Step(command=r"hotvirt ssh me@vm/box$", acts=(
        (r"\(yes/no", "yes\n"), (r"me@box:~\$ $", "exit\n")), patience=BOOT, shows=(r"me@box",)),
    Step(command=r"hotvirt scp README.md me@vm/box:$", shows=(r"README.md +100%",)),
    # 10. A pool
    Step(command=r"kubectl delete vm web$", shows=(r'virtualmachine.kubevirt.io "web" deleted',)),
    Step(command=r"kubectl apply -f examples/pool.yaml$", shows=(r"virtualmachinepool.pool.kubevirt.io/web created",)),
    Step(command=r"kubectl get vmpool,vm$", shows=(r"virtualmachinepool.pool.kubevirt.io/web ",)),
    Step(command=r"kubectl scale vmpool web --replicas=5$", shows=(r"web scaled",)),
    Step(command=r"kubectl get vm --watch$", acts=((ALL_FIVE_RUN, CTRL_C),), codes=(0, 1, 130), patience=BOOT),
    # 11. What happens when the home dies
    Step(command=r'kill -9 "\$\(hotvirt status '),
    # 12. Clean up
    Step(command=r"kubectl delete vmpool web$", shows=(r'"web" deleted',)),
    Step(command=r"kubectl delete vm box$", shows=(r'"box" deleted',), patience=200),
    Step(command=r"kubectl delete pvc data$", shows=(r'"data" deleted',)),
    Step(command=r"hotvirt down$", shows=(r"is down",), patience=200),
)  # fmt: skip
