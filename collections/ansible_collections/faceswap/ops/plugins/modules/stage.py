#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stage
short_description: Run one stage of a Faceswap job on a host, and follow it
version_added: 0.1.0
description:
  - Asks the supervisor on the host to bring a stage to its end. A stage is a command with explicit inputs and
    outputs. It is run only when its arguments, the content of its inputs or the engine changed, when what it made
    is gone, or when its model has fewer iterations than wanted.
  - The command runs apart from the connection. A lost connection, a host that boots or a lost controller loses
    nothing; the task waits for the host, and the next run finds the stage and goes on watching.
  - The supervisor runs only stages of the role faceswap_run, on the consent of both persons and with files that are
    covered by it; what it refuses fails the task with RV(consent_code). Before it is asked, all programs beside it
    are compared with the role's own. The controller's list of revoked records goes with each start.
  - Each end and each refusal is a line of the controller's audit log.
  - While it runs, one line on the terminal shows where it stands; without a terminal there is a line every 30 s.
    With E(FACESWAP_OPS_PROGRESS=json) in the environment each update is one line of JSON.
author:
  - The faceswap-oci maintainers
options:
  supervisor:
    description:
      - The supervisor program on the host. With C(supervisor.py) the stage runs detached, as the user of the task.
      - With its neighbour C(units.py) it runs in the systemd unit C(faceswap-oci@JOB-STAGE.service), as the owner of
        the folder of the jobs; it goes on by itself after a reboot or a kill. That takes root (C(become)).
    type: str
    required: true
  job_dir:
    description: Folder of the job on the host. Inputs and outputs are relative to it.
    type: str
    required: true
  stage:
    description: Name of the stage; its records are kept in C(stages/) of the job's folder.
    type: str
    required: true
  engine_file:
    description:
      - JSON file on the host that describes the engine. C(command) is the argument vector before the subcommand,
        C(python) its interpreter, C(identity) the paths whose content tells one engine from another,
        C(environment) what is set for it.
    type: str
    required: true
  script:
    description: A program beside the supervisor, run by the engine's Python instead of the engine itself.
    type: str
  arguments:
    description: The command's arguments. Another list makes the stage run again.
    type: list
    elements: str
    required: true
  neutral_arguments:
    description: Arguments that change how the work is done but not what is made; they do not start it again.
    type: list
    elements: str
    default: []
  inputs:
    description: Files and folders that the stage reads. Other content makes it run again.
    type: list
    elements: str
    required: true
  outputs:
    description: Files and folders that the stage makes. It is run again when one is gone or was changed.
    type: list
    elements: str
    required: true
  editable:
    description: Those of O(outputs) that a person may edit, such as a folder of faces to weed out.
    type: list
    elements: str
    default: []
  iterations:
    description: Total of iterations wanted. The command gets C(-i) with what is missing to it.
    type: int
  model:
    description: Folder with the C(*_state.json) that holds the iterations done; needed with O(iterations).
    type: str
  training:
    description: How a training with O(iterations) goes; a training goes on with other values of these.
    type: dict
    default: {}
    suboptions:
      batch_size:
        description:
          - Faces of each side per iteration, handed to the command as C(-b). With V(auto), what trains most faces a
            second on the host's GPU is found with throw-away models. Halved whenever memory runs out.
        type: str
      max_hours:
        description: The training is complete after so many hours, over all its runs; V(0) for no limit.
        type: float
      plateau_iterations:
        description:
          - The training is complete when the mean loss of so many iterations is not 1 % below that of as many before
            them; V(0) for never.
        type: int
      checkpoints:
        description:
          - So many saves of the model are kept as versions and tried, so that a broken model goes back to the last
            that is whole.
        type: int
  settings:
    description:
      - Sections of an ini file, written as C(STAGE.ini) to the job's folder and handed to the command as C(-C). Other
        settings make the stage run again.
    type: dict
    default: {}
  neutral_settings:
    description: More of O(settings), with which the stage goes on.
    type: dict
    default: {}
  stuck_s:
    description:
      - After so many seconds in which a command and all its children neither compute nor read, write or say anything,
        it is ended and started once more. After an error that it told, a twentieth of that is enough, and it failed.
    type: int
    default: 600
  need_mb:
    description: Free disk space in MB without which the stage does not start.
    type: int
    default: 0
  patience_s:
    description:
      - For how many seconds a host that stops answering is tried again while the stage is followed. The stage goes on
        there meanwhile, and after it, when the host counts as unreachable.
    type: int
    default: 600
  follow:
    description:
      - Whether the task waits for the stage's end. V(false) starts the stage, or finds it at work, and goes on with
        the next task; a later task with the same stage follows it and tells how it ended. Stages of a job that do
        not read each other's results run side by side this way.
    type: bool
    default: true
attributes:
  check_mode:
    description: Says whether the stage would be run, and runs nothing.
    support: full
  diff_mode:
    description: Shows why the stage is run.
    support: full
  idempotent:
    description: A stage that is done is not run again.
    support: full
"""

EXAMPLES = r"""
- name: Train the model
  faceswap.ops.stage:
    supervisor: /opt/faceswap-oci/bin/supervisor.py
    job_dir: /srv/faceswap-oci/anna-as-berta
    stage: train
    engine_file: /opt/faceswap-oci/engine.json
    arguments: [train, -A, faces_a, -B, faces_b, -m, model, -t, lightweight]
    neutral_arguments: [-b, "16", -s, "250"]
    inputs: [faces_a, faces_b]
    outputs: [model]
    iterations: 20000
    model: model
"""

RETURN = r"""
reason:
  description: Why the stage was run, or that nothing changed.
  returned: always
  type: str
  sample: the settings changed
command:
  description: The command's argument vector.
  returned: always
  type: list
  elements: str
running:
  description: Whether the stage was at work once this task had started or found it.
  returned: always
  type: bool
seconds:
  description: Seconds that the stage's runs took, over all tries since it was begun.
  returned: when the stage ran
  type: float
waited:
  description: Seconds that this task followed it.
  returned: when the stage ran
  type: float
iterations:
  description: Iterations that the model has behind it.
  returned: when the stage ran
  type: int
ended:
  description: Why a training was complete before its last iteration; C(by) is V(hours) or V(plateau).
  returned: when the stage ran
  type: dict
consents:
  description: On whose consent it was run, C(id), C(digest) of the record and C(signer) by side.
  returned: always
  type: dict
  sample: {a: {id: demo-a, digest: 5feceb66..., signer: demo@faceswap-oci}}
consent_code:
  description:
    - Why the stage was refused. 20 a record, its signature or picture is missing; 21 it cannot be read; 22 it has
      expired; 23 it is not valid yet; 24 it is revoked; 25 it was altered; 26 a stranger signed it; 27 it is for
      another file; 28 it does not cover this use; 29 the trusted signers or revocations cannot be read; 30 words,
      programs or files are not what was consented to; 31 the faces are not the person's.
  returned: when it was refused
  type: int
rc:
  description: Exit code of the command.
  returned: when the stage ran
  type: int
"""
